"""What is found in merged tables of tissue, and what the gate names."""

from site_client.pixels.release import MARGIN
from tests.benchmarks.markdown import table
from tests.benchmarks.pixel_road.fields import BLURRED_UNIT, SIGMA
from tests.benchmarks.pixel_road.sections.wording import CODEC, columns_of, each, of, spread

RECALL_TARGET = 0.99


def recovery(results):
    jobs = results["recovery"]
    columns = columns_of(jobs)
    seeds = sorted({int(name.split("seed")[1]) for name in jobs})

    def row(what, value):
        return [what, *(value(found) for found in columns.values())]

    def first(key, spec=","):
        return lambda found: format(found[0][key], spec)

    def every(*keys, spec=".3f"):
        return lambda found: each(of(found, *keys), spec)

    gates = columns_of(results.get("gate", {}))
    empty = [{}]

    def named(key, spec=".3f"):
        """By the rule as it is, of all seeds; nothing where it is not computed."""
        return lambda found: each(
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
            lambda found: f"**{each(of(found, 'recall_top'))}**",
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
    head = ["", *(f"{CODEC[codec]}, {grain}" for codec, grain in columns)]
    return (
        f"Risom et al., Cell 2022 (MIBI-TOF): {any_['fields']} fields of breast of as many "
        f"patients (DCIS, normal, invasive), {any_['pixels'] / 1e6:.1f} million pixels, counts of "
        f"8 bits, {any_['bands']} of 41 channels, three sites by patient. Not part of this "
        "repository; pictures of it are not published. The federation runs in memory through the "
        f"library's own functions. *Blurred* smooths the bands (σ = {SIGMA:g} pixels, "
        f"{BLURRED_UNIT} steps per count) before anything else, by SciPy in float32: but for a few "
        f"roundings in a million that is a plan's `pixels.smoothing`. Tables of {any_['rows']} × "
        f"{any_['columns']:,}, seeds {each(seeds, 'd')} (of the federation key), a value for each "
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
    for (codec, grain), jobs in columns_of(results["gate"]).items():
        for several in zip(*(job["margins"] for job in jobs), strict=True):
            rows.append(
                [
                    f"{CODEC[codec]}, {grain}: {jobs[0]['allowed_keys']:,} allowed",
                    f"{several[0]['margin']:.0f}",
                    each([row["threshold"] for row in several], ".1f"),
                    each([row["keys"] for row in several], ","),
                    each([row["of_allowed"] for row in several], ".3f"),
                    each([row["below_pixels"] for row in several], "d"),
                    each([row["below_sites"] for row in several], "d"),
                    each([row["least"] for row in several], "d"),
                    each([row["coverage"] for row in several], ".4f"),
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
        found = spread([row["of_allowed"] for row in rows], ".3f")
        parts.append(
            f"{what}, {short} of {named:,} named keys in all {len(rows)} runs have fewer than 50 "
            f"pixels (the rarest {lowest}), and {found} of the allowed keys are named, which "
            f"cover {spread([r['coverage'] for r in rows], '.3f')} of the pixels."
        )
    return " ".join(parts)
