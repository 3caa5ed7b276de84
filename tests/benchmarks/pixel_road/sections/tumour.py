"""Epithelium against other: the federation beside one site alone."""

import numpy as np

from tests.benchmarks.markdown import table
from tests.benchmarks.pixel_road.fields import EPITHELIAL
from tests.benchmarks.pixel_road.sections.wording import spread


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
            f"{spread([r['reference_share'] for r in federation.values()], '.2f')} of the "
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
        "bands before sketching**: a plan does with `pixels.smoothing = 2.0` and "
        "`pixels.value_scale = 16`.\n\n"
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
    keys = spread([row["keys"] for row in rows], ",.0f")
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
