"""The founding paper's own experiment: from bands to a place that a federated agent finds."""

from statistics import fmean

from tests.benchmarks.markdown import table
from tests.benchmarks.pixel_road.sections.wording import each

ARMS = {
    "maps": "**maps of four slices, federated**",
    "labels": "the same maps, tissue and empty glass told apart, federated",
    "bands": "four raw bands of one slice, federated",
    "smoothed-bands": "the same bands smoothed, federated",
    "components": "four principal components of one slice, federated",
    "local": "maps, each site alone",
    "pooled": "maps, all images in one place",
    "commands": "maps, federated once more by commands over loopback",
}
SAID = {"maps": "binary maps", "labels": "maps that tell glass from tissue"}
KINDS = {"scene": "A made-up scene", "tissue": "Tissue, of which a stack was made"}
HEAD = (
    "images",
    "posed: mean",
    "median",
    "consensus",
    "found",
    "native: mean",
    "median",
    "consensus",
    "found",
    "seeds",
)


def founding(results):
    jobs = results["founding"]
    parts = [_intro()]
    for data, title in KINDS.items():
        arms = _by_arm(jobs, data)
        if "passes-1-2" in arms and "maps" in arms:
            parts += [f"### {title}\n", _setting(data, arms), _errors(arms), _said(arms)]
    parts += ["### What it cost\n", _costs(jobs), _limits()]
    return "\n".join(parts)


def _by_arm(jobs, data):
    """Arm to its jobs by seed."""
    arms = {}
    for name, job in sorted(jobs.items()):
        kind, arm, seed = name.split("/")
        if kind == data:
            arms.setdefault(arm, {})[int(seed.removeprefix("seed"))] = job
    return arms


def _intro():
    return (
        "The whole road, as the founding paper draws it: bands → smoothing, which is a setting of "
        "the plan (`pixels.smoothing`) → keyed sketches of three sites → codebook → each subject's "
        "four consecutive slices as the four channels of one binary map (`cairn-site embed`) → a "
        "federated `landmark-2d` agent of the paper's network (`paper2d`) that finds a place in "
        "them. Sites differ in staining and have other subjects. Both federations are real runs "
        "with doors, ledgers, sums and tags, in one process; the row *by commands* is the first "
        "seed over processes and TLS, with `round start`, `codebook build`, `cairn-site embed` "
        "and another federation key. The clusters are named by the truth of **one** site's "
        "training slides.\n\n"
        "Held-out subjects of all sites, which no pass saw. *Posed*: turned, scaled and shifted at "
        "random; *native*: as they lie. Errors of single searches, mm; *consensus*: mean error of "
        "what the searches of a place agree on; *found*: share of these within the tolerance. "
        "*Constant*: the mean place of the training subjects. Means over seeds, ranges in "
        "brackets; a seed makes subjects, staining, first weights and exploration anew. *Each site "
        "alone* is the mean of the three agents. An agent alone has the gradient steps of one "
        "site, *all images in one place* those of all three together. *Tissue and empty glass told "
        "apart* is `cairn-site embed` without `--group`: a channel has 0 on glass, 1 on other "
        "tissue and 2 on tumour, where the paper's binary map shows an agent far from any tumour "
        "nothing at all. It was thought of **after** the other arms of the scene had been seen.\n\n"
        "```\npython -m tests.benchmarks.founding run scene --seeds 0 1 2\n"
        "python -m tests.benchmarks.founding run tissue --seeds 0\n"
        "python -m tests.benchmarks.founding run scene --seeds 0 --arms commands\n"
        "python -m tests.benchmarks.founding report -o deploy/results\n```\n"
    )


def _setting(data, arms):
    first = next(iter(arms["passes-1-2"].values()))
    made, pixels = first["settings"], first["settings"]["pixels"]
    agent = made["agent"]
    every = list(arms["passes-1-2"].values())
    rows, columns = first["side_pixels"]
    trained = first["subjects"] - first["held_out"]
    what = {
        "scene": "`tests/benchmarks/founding/scene.py` draws an organ with a large, a small and a "
        "hook-shaped tumour, to be found, among inflamed spots that share its bright bands. ",
        "tissue": "The 18 fields of the sections above, one a patient, binned 4 × 4. **A field is "
        "one slice**: its counts are dealt at random to four, each moved a little, so the four "
        "differ in noise and hardly in anatomy. To be found: where epithelium is densest, by four "
        "antibodies that are left out of the bands. ",
    }[data]
    unit = first["pixel_mm"] * rows
    return (
        what + f"{trained} training and {first['held_out']} held-out subjects, four slices of "
        f"{rows} × {columns} pixels ({unit:.3g} mm wide), {first['bands']} bands, "
        f"{first['pixels_counted']:,} pixels counted. σ = {pixels['smoothing']:g} pixels, "
        f"{pixels['components']} components of {pixels['bins']} bins; "
        f"{each([j['keys'] for j in every], ',')} keys named, {made['clusters']} clusters, "
        f"{each([j['tumour_clusters'] for j in every], 'd')} of them tumour; balanced accuracy of "
        "the held-out maps, background included, "
        f"{each([j['map_balanced_accuracy'] for j in every], '.3f')}. Agents: views of "
        f"{agent['roi']} samples at {len(agent['zooms'])} zooms, batches of "
        f"{agent['learner']['batch']}, {agent['learner']['updates']} gradient steps a site in "
        f"{agent['rounds']} rounds; tolerance {first['tolerance_mm']:g} mm.\n"
    )


def _errors(arms):
    rows = [[ARMS[arm], *_row(arms[arm])] for arm in ARMS if arm in arms]
    rows.append(["constant", *_row(arms["maps"], "prior")])
    return table(HEAD, rows)


def _row(jobs, prefix=""):
    """Cells of an arm; each figure is a seed's, several agents of a seed averaged."""
    names = ("prior", "prior_median", "prior", "prior_within") if prefix else None
    cells = []
    for pose in ("posed", "native"):
        for key in names or ("mean", "median", "consensus", "within"):
            spec = ".0%" if key.endswith("within") else _spec(jobs)
            cells.append(_over_seeds(_figures(jobs, pose, key), spec))
    return [*cells, str(len(jobs))]


def _spec(jobs):
    """Decimals of millimetres: more where a whole field is half a millimetre wide."""
    some = next(iter(jobs.values()))["figures"][0]["posed"]["prior"]
    return ".3f" if some < 1 else ".1f"


def _figures(jobs, pose, key):
    return [fmean(one[pose][key] for one in job["figures"]) for job in jobs.values()]


def _over_seeds(values, spec):
    mean = format(fmean(values), spec)
    if len(values) == 1:
        return mean
    return f"{mean} ({format(min(values), spec)} – {format(max(values), spec)})"


def _said(arms):
    """In how many seeds maps were closer than every other arm; the figures decide."""
    ours = {mine: name for mine, name in SAID.items() if mine in arms}
    rows = []
    for arm, words in ARMS.items():
        if arm not in (*SAID, "commands") and arm in arms:
            cells = [_closer(arms, mine, arm, key) for mine in ours for key in ("mean", "median")]
            rows.append([words, *cells])
    head = ["posed, in so many seeds closer than"]
    head += [f"{name}: {key}" for name in ours.values() for key in ("mean", "median")]
    return "\n" + table(head, rows)


def _closer(arms, mine, arm, key):
    seeds = sorted(set(arms[mine]) & set(arms[arm]))
    ours, theirs = (
        [_figures({s: arms[a][s]}, "posed", key)[0] for s in seeds] for a in (mine, arm)
    )
    return f"{sum(a < b for a, b in zip(ours, theirs, strict=True))} of {len(seeds)}"


def _costs(jobs):
    rows = []
    for data in KINDS:
        arms = _by_arm(jobs, data)
        if "passes-1-2" not in arms or "maps" not in arms:
            continue
        first = list(arms["passes-1-2"].values())
        runs = list(arms["maps"].values())
        spent = [job["cpu_s"] for job in first]
        rows.append(
            [
                data,
                each([s["count"] for s in spent], ".0f"),
                each([s["codebook"] for s in spent], ".0f"),
                each([s["maps"] for s in spent], ".1f"),
                each([job["cpu_s"] for job in runs], ".0f"),
                each([job["bytes_a_site"] / 1e6 for job in runs], ".1f"),
            ]
        )
    head = [
        "data",
        "pass 1: three sites count together, CPU s",
        "codebook (UMAP compiling included)",
        "pass 2: maps of all slices",
        "pass 3: the federated agents",
        "MB out of a site in pass 3",
    ]
    return (
        _by_commands(jobs)
        + "Processor seconds of all parties together, a value for each seed, on a machine that had "
        "other work at the same time.\n\n" + table(head, rows)
    )


def _by_commands(jobs):
    """What the run by commands took, where there is one."""
    said = [
        f"By commands, from nothing to the audit: {job['seconds']:.0f} s, {job['cpu_s']:.0f} "
        f"processor seconds of the long-running processes, {job['bytes_a_site'] / 1e6:.1f} MB out "
        f"of a site in both runs, {job['ledgers_intact']} of 3 ledgers intact; its errors are "
        + ("those" if job["figures"] == _alike(jobs, name) else "not those")
        + " of the run in one process, digit for digit. "
        for name, job in sorted(jobs.items())
        if name.split("/")[1] == "commands"
    ]
    return "".join(said)


def _alike(jobs, name):
    """Figures of the same seed's maps in one process."""
    return jobs.get(name.replace("/commands/", "/maps/"), {}).get("figures")


def _limits():
    return (
        "\nWhat this does not show: that maps help where sites have scanners and not a made-up "
        "staining, or where slices are cut from one biopsy; nobody has shared such a set with "
        "landmarks. Agents train for few gradient steps, so an arm that is behind may be slower "
        "and not worse. A map has four slices and the other images one: what four slices add and "
        "what the codebook adds are not told apart. Six held-out patients and two seeds of tissue "
        "order nothing but large differences. **The scene's staining was made milder**: with "
        "twice its spread between sites, two sites had so few keys in common that no codebook "
        "could be made of them; spread, components and bins were then chosen on seed 0 by how "
        "many keys were named. One agent had been trained on it by then, to see what a gradient "
        "step costs: the agents' settings are of that, and were not changed for any result.\n"
    )
