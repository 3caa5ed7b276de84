"""The sections of ``PIXELS.md``: each a function of the computed figures alone."""

import numpy as np

from site_client.pixels.release import MARGIN
from tests.benchmarks.pixel_road.fields import BLURRED_UNIT, EPITHELIAL, SIGMA

RECALL_TARGET = 0.99
DEMO_TARGET_S = 60.0


def demo(results):
    jobs = sorted(results["demo"].values(), key=lambda r: r["wall_s"])
    alone = {}
    for job in jobs:
        found = job["clusters"]["named_by_one_site_right_at_the_others"]
        for site, share in found.items():
            alone.setdefault(site, []).append(share)
    kmeans = [r["purity"] for r in results.get("k-means", {}).values()]
    rows = [
        ["seeds", _each([j["seed"] for j in jobs], "d")],
        [
            "different keys; keys that exact counting would let be named ({pixels} pixels, "
            "{sites} sites)".format(**jobs[0]["rule"]),
            _each([j["keys"]["in_the_scene"] for j in jobs], ",")
            + "; "
            + _each([j["keys"]["allowed_by_exact_counts"] for j in jobs], ","),
        ],
        [
            "share of these named by the federation (recall)",
            _each([j["recall"] for j in jobs], ".3f"),
        ],
        [
            "named and not allowed; largest error of a count",
            _each([j["keys"]["released_but_not_allowed"] for j in jobs], "d")
            + "; "
            + _each([j["keys"]["largest_error_pixels"] for j in jobs], "d")
            + " pixels",
        ],
        [
            "share of the scene's pixels whose key was named (coverage)",
            _each([j["coverage"] for j in jobs], ".3f"),
        ],
        [
            "clusters; kinds of ground among their names, of 16",
            _each([j["clusters"]["count"] for j in jobs], "d")
            + "; "
            + _each([j["clusters"]["kinds_named"] for j in jobs], "d"),
        ],
        [
            "labelled pixels that agree with the name of their cluster (purity)",
            _each([j["clusters"]["purity"] for j in jobs], ".3f"),
        ],
        ["the same of the sites' maps", _each(_of(jobs, "clusters", "maps_agree_with_labels"))],
        ["beside it: the largest kind alone", _each(_of(jobs, "clusters", "largest_kind_alone"))],
        ["k-means, 24 clusters of all spectra in one place", _each(kmeans) or "not computed"],
        [
            "named by the labels of ONE site, right at the two others",
            "; ".join(f"{site} {_each(shares)}" for site, shares in sorted(alone.items())),
        ],
        [
            "bytes out of a site, both runs together",
            _each([max(j["bytes_out"].values()) / 1e6 for j in jobs], ".1f") + " MB",
        ],
        [
            "ledgers intact",
            _each([sum(v["verdict"] == "intact" for v in j["ledgers"].values()) for j in jobs], "d")
            + " of 3",
        ],
        [
            "seconds from nothing to the picture; load average at its end; processor seconds of "
            "the processes that it starts and watches",
            _each([j["seconds"] for j in jobs], ".0f")
            + "; "
            + _each([j["load"] for j in jobs], ".0f")
            + "; "
            + _each([sum(j["processor_s"].values()) for j in jobs], ".0f"),
        ],
    ]
    return (
        "Indian Pines: an airborne scene of farmland and woods, 145 × 145 pixels of 20 m, 200 "
        "bands, 16 kinds of ground. **Remote sensing, not tissue**; it shows the machinery. Cut "
        "into 3 × 3 blocks, dealt as in a Latin square to three sites, which write OME-TIFF, "
        "folders of single-band TIFFs, and `.npy` with the bands in another order. Real "
        "processes, real TLS, both plans of `deploy/plans/pixels-demo*.toml`.\n\n"
        + table(["", "by seed"], rows)
        + "\nNames come from the labels of all three sites (each cluster by the commonest label of "
        "its pixels), so purity is a fit and not a prediction, and the number of bins was chosen "
        "on this scene; the row of one site's labels is what names are worth elsewhere, and it is "
        "little: fields of one crop differ more from site to site than crops do.\n"
    )


def recovery(results):
    jobs = results["recovery"]
    columns = _columns(jobs)
    seeds = sorted({int(name.split("seed")[1]) for name in jobs})

    def row(what, value):
        return [what, *(value(found) for found in columns.values())]

    def first(key, spec=","):
        return lambda found: format(found[0][key], spec)

    def every(*keys, spec=".3f"):
        return lambda found: _each(_of(found, *keys), spec)

    gates = _columns(results.get("gate", {}))
    empty = [{}]

    def named(key, spec=".3f"):
        """By the rule as it is, of all seeds; nothing where it is not computed."""
        return lambda found: _each(
            [_named(job)[key] for job in gates.get(_kind(found), empty) if job], spec
        )

    any_ = next(iter(columns.values()))[0]
    rows = [
        row("foreground, pixels", first("foreground")),
        row("different keys", first("distinct_keys")),
        row("coverage of the 20,000 most frequent", first("coverage_top", ".3f")),
        row("how often the 20,000th occurs", first("count_at_top")),
        row(
            f"**recall of these 20,000 from merged tables (target {RECALL_TARGET})**",
            lambda found: f"**{_each(_of(found, 'recall_top'))}**",
        ),
        row("… when any key as frequent as the 20,000th will do", every("frequent_as_the_last")),
        row("keys named by the gate", named("keys", ",")),
        row("coverage of the named", named("coverage")),
        row(
            "error of a named count, pixels: median; 99th percentile; largest",
            lambda found: "; ".join(
                named(key, ".1f")(found) for key in ("error_p50", "error_p99", "error_max")
            ),
        ),
        row("tables; MB a site", lambda f: f"{f[0]['tables']}; {f[0]['table_bytes'] / 1e6:.0f}"),
        row("seconds of a core to count all sites", every("cpu_s", "count", spec=".1f")),
        row("… to recover", every("cpu_s", "recover", spec=".0f")),
    ]
    head = ["", *(f"{_CODEC[codec]}, {grain}" for codec, grain in columns)]
    return (
        f"Risom et al., Cell 2022 (MIBI-TOF): {any_['fields']} fields of breast of as many "
        f"patients (DCIS, normal, invasive), {any_['pixels'] / 1e6:.1f} million pixels, counts of "
        f"8 bits, {any_['bands']} of 41 channels, three sites by patient. Not part of this "
        "repository; pictures of it are not published. The federation runs in memory through the "
        f"library's own functions. *Blurred* smooths the bands (σ = {SIGMA:g} pixels, "
        f"{BLURRED_UNIT} steps per count) before anything else. Tables of {any_['rows']} × "
        f"{any_['columns']:,}, seeds {_each(seeds, 'd')} (of the federation key), a value for each "
        "where they differ. The gate's rule is the next section's.\n\n"
        + table(head, rows)
        + '\n*8 components*: `codec = "reduced"`, 8 components of 22 bins, three tables and '
        'exact counts of 4 digits. *All bands*: `codec = "all-bands"`, 3 grey levels of each '
        "band in one key of 56 bits, found again over a ladder of prefixes"
        + _ladder(columns)
        + ". Sites take what they found **off the full table together**, with rarer keys down to "
        "a quarter of the cut, and estimate again what is left (`common/sketching/peeling.py`): "
        "ranks at the cut are decided by less noise, at no more bytes.\n\n"
        "Tables of 16 × 200,000 need `limits.max_envelope_bytes` above the size in the table; the "
        "plan's defaults (15 × 150,000, 56 MB a site) fit the default policy. With "
        "`presence_floor = 1` **the sites refuse** on these fields: so many keys occur once or "
        "twice that the presence sketch cannot tell one site from two.\n"
    )


def _columns(jobs):
    """Jobs of all seeds by (codec, grain), components first."""
    columns = {}
    for name, job in sorted(jobs.items(), key=lambda item: item[0].split("/")[0] != "reduced"):
        codec, grain, _ = name.split("/")
        columns.setdefault((codec, grain), []).append(job)
    return columns


_CODEC = {"reduced": "8 components", "all-bands": "all bands"}


def _named(job):
    """What is named by the rule as it is."""
    return next(row for row in job["margins"] if row["margin"] == MARGIN)


def _kind(jobs):
    return tuple(jobs[0]["job"].split("/")[:2])


def _ladder(columns):
    found = next((f[0] for (codec, _), f in columns.items() if codec == "all-bands"), None)
    if found is None:
        return ""
    counted, *rungs = found["ladder"]
    return (
        f": exact counts of the {counted} highest digits, then sketches of "
        f"{', '.join(map(str, rungs))} and all {found['digits']}"
    )


def gate(results):
    rows = []
    for (codec, grain), jobs in _columns(results["gate"]).items():
        for several in zip(*(job["margins"] for job in jobs), strict=True):
            rows.append(
                [
                    f"{_CODEC[codec]}, {grain}: {jobs[0]['allowed_keys']:,} allowed",
                    f"{several[0]['margin']:.0f}",
                    _each([row["threshold"] for row in several], ".1f"),
                    _each([row["keys"] for row in several], ","),
                    _each([row["of_allowed"] for row in several], ".3f"),
                    _each([row["below_pixels"] for row in several], "d"),
                    _each([row["below_sites"] for row in several], "d"),
                    _each([row["least"] for row in several], "d"),
                    _each([row["coverage"] for row in several], ".4f"),
                ]
            )
    head = [
        "keys",
        "margin",
        "estimate to reach",
        "named",
        "of the allowed",
        "truly below 50 pixels",
        "truly at one site",
        "least true count",
        "coverage",
    ]
    rule = next(iter(results["gate"].values()))["rule"]
    return (
        f"Rule: {rule['pixels']} pixels in the federation, present at {rule['sites']} sites, from "
        f"{rule['present_from']} pixels a site; the plan's defaults. *Allowed* is what exact "
        "counts would let through.\n\n"
        "The gate judges estimates: **a key a few pixels short of the rule can be named when its "
        "estimate is a few pixels too high.** It therefore asks for a margin: an estimate must "
        f"exceed by {MARGIN:g} standard errors the 49 pixels that a key short of the rule can at "
        "most have (`site_client/pixels/release.py`). A standard error is that of the median over "
        "rows, of what is left in the full table after all found keys were taken off. "
        + _margins_said(results["gate"].values())
        + " The price is paid by keys just above the rule, which hold few pixels. It is no proof: "
        "an estimate further off than its margin still names a key that is too rare. Presence "
        "at two sites is an estimate, too, and has no margin: a key with fewer pixels than the "
        "presence floor at its second site can look present there.\n\n" + table(head, rows)
    )


def _margins_said(jobs):
    """Without a margin, and with the rule's own: all runs together."""
    parts = []
    for what, margin in (("Without a margin", 0.0), (f"With {MARGIN:g}", MARGIN)):
        rows = [r for job in jobs for r in job["margins"] if r["margin"] == margin]
        short, named = (sum(row[key] for row in rows) for key in ("below_pixels", "keys"))
        lowest = min(row["least"] for row in rows)
        found = _spread([row["of_allowed"] for row in rows], ".3f")
        parts.append(
            f"{what}, {short} of {named:,} named keys in all {len(rows)} runs have fewer than 50 "
            f"pixels (the rarest {lowest}), and {found} of the allowed keys are named, which "
            f"cover {_spread([r['coverage'] for r in rows], '.3f')} of the pixels."
        )
    return " ".join(parts)


def tumour(results):
    jobs = results["tumour"]
    federation = {name: r for name, r in jobs.items() if name.endswith("/federation")}
    seeds = sorted({name.split("/")[1].removeprefix("seed") for name in jobs})
    sections, pairs = [], Pairs()
    for grain in dict.fromkeys(name.split("/")[0] for name in sorted(jobs)):
        chosen = {name: r for name, r in jobs.items() if name.startswith(f"{grain}/")}
        sections += _agreement(grain, chosen, pairs)
    head = [
        "bands",
        "clusters",
        "keys of",
        "runs",
        "keys",
        "balanced accuracy",
        "Dice",
        "all pixels",
    ]
    some = next(iter(federation.values()), None)
    reference = ""
    if some is not None:
        reference = (
            f" above Otsu's threshold ({some['reference_counts']:.1f} counts), which "
            f"{_spread([r['reference_share'] for r in federation.values()], '.2f')} of the "
            "foreground is"
        )
    return (
        f"The four epithelial channels ({', '.join(EPITHELIAL)}) are **left out** of the sketch, "
        f"which sees {next(iter(jobs.values()))['bands']} bands, and make the reference: their "
        f"sum, smoothed,{reference}. So the reference is *epithelium, malignant or not*, by four "
        "antibodies; no pathologist drew it, and normal ducts count as positive. Codec, tables "
        "and rule as above (8 components). Named keys are laid out by UMAP (50 neighbours) and "
        "clustered by k-means. A cluster is `tumour` if it holds more of the reference than "
        "average at **one** site; agreement is measured at the **two others**, over the "
        "foreground; the last column over all pixels, with the background called `other`. *One "
        "site alone*: codec, keys (50 pixels or more, exact) and clusters of that one site only. "
        f"Mean over {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)} × 3 naming sites, "
        "with the range. *Each key by the pixels judged*: for balanced accuracy no codebook "
        "of these keys can do better.\n\n" + table(head, sections) + f"\n{pairs.said()}\n\n"
        "Seeds and ways to split 18 patients are few; ranges are ranges and no confidence "
        "intervals. A pixel as counted holds a few counts, and its key little: **smooth the "
        "bands before sketching**; no plan does it for you.\n\n"
        "![Named keys in the plane, by cluster and by share of epithelium](pixels-plane.png)\n"
    )


class Pairs:
    """Federation against one site alone, at the same seed, naming site and clusters."""

    def __init__(self):
        self.gains = {}

    def add(self, what, gain):
        self.gains.setdefault(what, []).append(gain)

    def said(self):
        if not self.gains:
            return "One of federation and single sites is not computed yet."
        every = np.concatenate([np.array(gains) for gains in self.gains.values()])
        worse = every[every < 0]
        ahead = f"in {worse.size}, by {-worse.min():.4f} at most" if worse.size else "in none"
        means = "; ".join(f"{what} {np.mean(g):+.3f}" for what, g in sorted(self.gains.items()))
        return (
            "Balanced accuracy of the federation less that of one site alone, mean over pairs of "
            f"the same seed and naming site: {means}. Of {every.size} pairs, one site alone was "
            f"ahead {ahead}."
        )


def _agreement(grain, jobs, pairs):
    together, alone, ceilings = {}, {}, []
    for name, job in jobs.items():
        _, seed, who = name.split("/")
        target = together if who == "federation" else alone
        ceilings += job.get("ceiling", [])
        for row in job["rows"]:
            key = (row["clusters"], seed, row["named_at"])
            target[key] = row | {"keys": job["keys"]}
    lines = []
    for n in sorted({key[0] for key in (*together, *alone)}):
        for who, found in (("federation", together), ("one site alone", alone)):
            chosen = [row for key, row in sorted(found.items()) if key[0] == n]
            if chosen:
                lines.append([grain, str(n), who, str(len(chosen)), *_row(chosen)])
        for key in sorted(set(together) & set(alone)):
            if key[0] == n:
                ours, theirs = (
                    f[key]["foreground"]["balanced_accuracy"] for f in (together, alone)
                )
                pairs.add(f"{grain}, {n} clusters", ours - theirs)
    if ceilings:
        best = [f"{np.mean([c[k] for c in ceilings]):.3f}" for k in ("balanced_accuracy", "dice")]
        lines.append(
            [grain, "", "each key by the pixels judged", str(len(ceilings)), "", *best, ""]
        )
    return lines


def _row(rows):
    keys = _spread([row["keys"] for row in rows], ",.0f")
    values = {
        measure: [row["foreground"][measure] for row in rows]
        for measure in ("balanced_accuracy", "dice")
    }
    ends = [f"{np.mean(v):.3f} ({min(v):.3f} – {max(v):.3f})" for v in values.values()]
    every = [
        f"{np.mean([row['all pixels'][m] for row in rows]):.3f}"
        for m in ("balanced_accuracy", "dice")
    ]
    return [keys, *ends, ", ".join(every)]


def speed(results):
    found = results["speed"]["all"]
    encode, disk = found["encode"], found["disk"]
    rows = [
        [
            row["what"],
            f"{row['measured']:g}",
            f"{row['target']:g}",
            "met" if row["met"] else "SHORT",
        ]
        for row in found["targets"]
    ]
    beside = "; ".join(f"{name} {value:.1f}" for name, value in encode["ns_per_pixel"].items())
    text = (
        "Synthetic pixels of 35 bands of 16 bits. In memory: processor time of one thread, median "
        "of turns. From disk: wall time, the page cache dropped before each turn, reading alone "
        "(plain reads of 4 MB) and reading, encoding and counting exact-first into one sketch of "
        "16 × 200,000 taking turns.\n\n"
        + table(["what", "measured", "target", ""], rows)
        + f"\nProcessor ns per pixel in memory: {beside}."
    )
    if "skipped" in disk:
        return text + f" From disk: skipped, {disk['skipped']}.\n"
    ratios = disk["over_read"]
    return text + (
        f" The file has {disk['bytes'] / 1e9:.2f} GB, read at {disk['read_GB_per_s']} GB/s; all "
        f"four tables instead of one, two threads: {ratios['tables, 2 threads']} times reading. "
        f"Load average during the run {found['load']['average']:.1f} on "
        f"{found['load']['cores']} cores.\n"
    )


def attack(results):
    rows = []
    for name, found in results["attack"]["all"].items():
        if not isinstance(found, dict) or "tier_1" not in found:
            continue
        e, d = found["tier_0_enumeration"], found["tier_0_prefix_tables"]
        wrong = found["tier_1"]
        guesses = sum(g["guesses"] for g in wrong.values())
        mean = sum(g["guesses"] * g["mean_recall"] for g in wrong.values()) / guesses
        chance = sum(g["guesses"] * g["chance_recall"] for g in wrong.values()) / guesses
        rows.append(
            [
                f"{name}, {found['rows']} × {found['columns']:,}",
                f"{e['recall']:.3f}; {e['core_minutes_for_all']:.0f}",
                f"{d['recall']:.3f}; {d['cpu_s']:.1f}",
                f"{guesses}: {mean:.4f}; {chance:.4f}",
                f"{found['tier_1_smallest_p_of_all_tests']:.2g}",
                f"{found['right_key_as_control']['mean_recall']:.3f}",
            ]
        )
    head = [
        "tables",
        "public seeds: recall of frequent keys; core-minutes to try all",
        "… with prefix tables: recall; seconds",
        "wrong keys: mean recall; chance",
        "smallest p, corrected",
        "the right key, as control",
    ]
    return (
        "`python -m tests.benchmarks.sketch_attack`, held by "
        "`tests/privacy/test_sketch_attack.py`. With public seeds a table names its frequent "
        "pixels to anybody who tries all keys; without the key, candidates rank no better than "
        "chance.\n\n" + table(head, rows)
    )


def shortfalls(results, absent):
    short = [f"Not computed for this report: `{study}`." for study in absent]
    for (codec, grain), jobs in _columns(results.get("recovery", {})).items():
        found = _of(jobs, "recall_top")
        if min(found) < RECALL_TARGET:
            short.append(
                f"Recall of the 20,000 most frequent, {_CODEC[codec]}, {grain}: "
                f"{_each(found, '.4f')}, target {RECALL_TARGET}."
            )
    for name, job in sorted(results.get("demo", {}).items()):
        if job["seconds"] > DEMO_TARGET_S:
            short.append(
                f"The demonstration ({name.split('/')[1]}) took {job['seconds']:.0f} s at a load "
                f"average of {job['load']:.0f}, target {DEMO_TARGET_S:.0f} s on two idle cores."
            )
    for job in results.get("speed", {}).values():
        for row in job["targets"]:
            if not row["met"]:
                short.append(f"{row['what']}: {row['measured']:g}, target {row['target']:g}.")
    short += [
        "No pathologist's reference: what agrees with four antibodies is not diagnosed.",
        "One range for all components (as published) leaves the first component of bright, "
        "similar spectra a single bin: it is nearly constant once divided by intensity.",
    ]
    return "".join(f"- {line}\n" for line in short)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _of(jobs, *keys):
    out = []
    for job in jobs:
        for key in keys:
            job = job[key]
        out.append(job)
    return out


def _each(values, spec=".3f"):
    """All values, or one when they read alike."""
    said = [format(value, spec) for value in values]
    return said[0] if len(set(said)) == 1 else ", ".join(said)


def _spread(values, spec):
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low} – {high}"
