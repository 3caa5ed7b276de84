"""Sections on interchangeable landmarks, boxes, planes and motions, out of computed figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.tables import (
    COLUMNS,
    Results,
    columns,
    cost,
    jobs_of,
    mean_of,
    spread,
)
from tests.benchmarks.markdown import table

_METHODS = ("ends by name", "ends interchangeable")


def fetal_section(results: Results) -> str:
    """Both ways of saying which end of an axis is which, on the folds that both have."""
    by_method = {m: _by_fold(results, m) for m in _METHODS}
    # Older files of the first method hold all figures but those of either order.
    by_method[_METHODS[0]] = _by_fold(results, "DQN") | by_method[_METHODS[0]]
    folds = sorted(set.intersection(*(set(found) for found in by_method.values())))
    found_by = {m: [found[fold] for fold in folds] for m, found in by_method.items()}
    compared, singles = [], []
    for method, found in found_by.items():
        either = [r["consensus_either_way"]["all"] for r in found if "consensus_either_way" in r]
        complete = len(either) == len(found)
        compared.append(
            [
                method,
                spread([_by_name(r) for r in found]),
                spread([e["mean"] for e in either]) if complete else "not measured",
                f"{mean_of(e['far'] for e in either):.1%}" if complete else "",
                *(
                    spread([r[f"circumference_{w}"] for r in found])
                    for w in ("mean_abs", "median_abs")
                ),
            ]
        )
    for method, found in by_method.items():
        label, every = f"{method} ({_folds(found)})", list(found.values())
        singles += [
            [label, pose, *columns([r[pose] for r in every])] for pose in ("posed", "native")
        ]
    last = found_by[_METHODS[1]]
    prior = [r["prior_either_way"]["all"] for r in last]
    compared.append(
        [
            "prior (constant)",
            spread([r["prior_by_name"]["all"]["mean"] for r in last]),
            spread([e["mean"] for e in prior]),
            f"{mean_of(e['far'] for e in prior):.1%}",
            spread([r["circumference_prior_abs"] for r in last]),
            "",
        ]
    )
    named = list(by_method[_METHODS[0]].values())
    per = [
        [
            name,
            spread([r["native"]["landmarks"][name]["consensus"] for r in named]),
            spread([r["consensus_either_way"][name]["mean"] for r in last]),
            f"{mean_of(r['native']['landmarks'][name]['prior'] for r in named):.1f}",
        ]
        for name in data.FETAL_LANDMARKS
    ]
    circle = spread([r["circumference_mean_abs"] for r in named])
    return (
        "Which end of an axis is called left or top was fixed by the image and not by anatomy: "
        "where an axis stands upright, the names jump. *Ends by name*: each end is a landmark like "
        "any other. *Ends interchangeable*: the two ends of an axis are declared a couple; each "
        "agent looks for the end on its side of the image as it sees it, so that images may be "
        "turned any way in training (±180° instead of ±5°). "
        "*By name* and *either way* (a couple in the better of its two orders; an end found twice "
        "counts as an error) measure the consensus, as acquired, mm; HC is the head circumference "
        "from the points found.\n\n"
        + table(
            ["method", "by name", "either way", "> 10 mm", "HC mean abs. error", "HC median"],
            compared,
        )
        + _naming_verdict(found_by)
        + table(
            [
                "point (native consensus)",
                f"by name ({_folds(named)})",
                f"interchangeable, either way ({_folds(last)})",
                "prior",
            ],
            per,
        )
        + f"\nBy name, over {len(named)} folds, the circumference errs by {circle} mm; its mean is "
        f"{mean_of(r['circumference_truth_mean'] for r in last):.1f} mm. "
        f"The methods are compared on {'folds' if len(folds) > 1 else 'fold'} "
        f"{', '.join(folds)}, seed 0. {_dropped(results)}Single searches:\n\n"
        + table(["method", "", *COLUMNS], singles)
        + cost(last, "fold")
    )


def _folds(found: Sized) -> str:
    return f"{len(found)} fold{'s' if len(found) > 1 else ''}"


def _naming_verdict(found_by: Mapping[str, Sequence[Mapping]]) -> str:
    """Whether names were what was wrong."""
    named, free = (found_by[m] for m in _METHODS)
    by_name = mean_of(_by_name(r) for r in named)
    either = mean_of(r["consensus_either_way"]["all"]["mean"] for r in free)
    swapped = mean_of(_by_name(r) for r in free) - either
    circles = [mean_of(r["circumference_mean_abs"] for r in found) for found in (named, free)]
    better = either < by_name and circles[1] < circles[0]
    return (
        f"\nDeclaring the ends interchangeable {'helps' if better else 'does **not** help'}: "
        f"{either:.2f} mm either way against {by_name:.2f} mm by name, a circumference error of "
        f"{circles[1]:.1f} against {circles[0]:.1f} mm. "
        + (
            ""
            if better
            else f"Names account for only {swapped:.2f} mm of its error. What is left, we think, "
            "is where on a nearly round outline its long axis ends: nothing there marks the place, "
            "while the centre is found well.\n"
        )
        + "\n"
    )


def _dropped(results: Results) -> str:
    """What came of a design that was given up."""
    first = results.get("nearer end/fold0/seed0")
    if first is None:
        return ""
    return (
        "A first design, each looking for whichever end is nearer, was given up after fold 0 was "
        f"looked at ({first['consensus_either_way']['all']['mean']:.1f} mm either way; its "
        f"circumferences were {-first['circumference_bias']:.1f} mm too small on average: the ends "
        "were found too close together), so fold 0 is not clean of that choice. "
    )


def _by_fold(results: Results, method: str) -> dict[str, dict]:
    """Results of seed 0 by fold."""
    chosen = jobs_of(results, f"{method}/")
    return {
        r["job"].split("/")[1].removeprefix("fold"): r
        for r in chosen
        if r["job"].endswith("/seed0")
    }


def _by_name(result: Mapping) -> float:
    if "consensus_by_name" in result:
        return result["consensus_by_name"]["all"]["mean"]
    return result["native"]["consensus"]


def box_section(results: Results) -> str:
    """Overlaps beside the constant box's."""
    found = list(results.values())
    rows = []
    for pose in ("posed", "native"):
        for who, label in (
            ("single", "one search"),
            ("agreed", "consensus of 5"),
            ("prior", "prior: constant mean box"),
        ):
            figures = [r[pose][who] for r in found]
            rows.append(
                [
                    label,
                    pose,
                    spread([f["iou"]["mean"] for f in figures]),
                    f"{mean_of(f['iou']['median'] for f in figures):.2f}",
                    f"{mean_of(f['iou']['>=0.5'] for f in figures):.1%}",
                    f"{mean_of(f['iou']['>=0.75'] for f in figures):.1%}",
                    spread([f["centre_mm"]["mean"] for f in figures]),
                ]
            )
    detected = [r["detection"] for r in found]
    return (
        "The truth is the box around the annotated ellipse. IoU is intersection over union; a "
        "search starts anywhere in the image with a box of any size.\n\n"
        + table(
            ["what", "", "IoU", "median", "IoU >= 0.5", "IoU >= 0.75", "centres apart, mm"], rows
        )
        + "\nLooking all over each image instead (searches from a grid of starts in two sizes, "
        "scores, non-maximum suppression), not knowing that there is one head: recall "
        f"{mean_of(d['recall'] for d in detected):.1%}, precision "
        f"{mean_of(d['precision'] for d in detected):.1%} at IoU >= 0.5.\n\n"
        f"{found[0]['images']} held-out images, {len(found)} seed"
        f"{'s' if len(found) > 1 else ''}. The library's default steps "
        "and views; the number of updates was chosen on the fetuses trained on.\n"
        + cost(found, "seed")
    )


def plane_section(results: Results) -> str:
    """Angles and distances beside the constant plane's."""
    rows = []
    for plane in ("mid-sagittal", "AC-PC axial"):
        found = jobs_of(results, f"{plane}/")
        for pose in ("posed", "native") if found else ():
            for who, label in (
                ("single", "one search"),
                ("agreed", "consensus of 5"),
                ("prior", "prior"),
            ):
                figures = [r[pose][who] for r in found]
                rows.append(
                    [
                        plane,
                        label,
                        pose,
                        *(
                            spread([f[name]["mean"] for f in figures])
                            for name in ("angle_deg", "offset_mm", "landmark_to_plane_mm")
                        ),
                        str(len(figures)),
                    ]
                )
    by_head = [
        [
            head,
            plane,
            *(
                spread([r["posed"]["agreed"][name]["mean"] for r in found])
                for name in ("angle_deg", "offset_mm")
            ),
        ]
        for head in data.HEADS
        for plane in ("mid-sagittal", "AC-PC axial")
        if (found := jobs_of(results, f"{plane}/{head}/"))
    ]
    return (
        "Truth: mid-sagittal is the least-squares plane of ten midline points of the AFIDs "
        "protocol; AC-PC axial holds AC and PC and stands upright on the former. *Prior* is the "
        "mean plane of the three other heads, which are aligned alike: as acquired it is hard to "
        "beat, under random rotation (±15° about each axis) and shift (±15 mm) it knows nothing. "
        "*Offset* is the difference of the planes' distances from the volume's middle; *landmarks* "
        "the mean distance of the points that define the plane from the found one.\n\n"
        + table(
            ["plane", "what", "", "angle, deg", "offset, mm", "landmarks, mm", "runs"],
            rows,
        )
        + "\n"
        + table(["held-out head (consensus, posed)", "plane", "angle, deg", "offset, mm"], by_head)
        + "\nThe library's default steps and views. The number of updates was chosen with the "
        "mid-sagittal plane, two averaged heads trained on and a third (MNI152 2009c) looked at: "
        "Colin27, the one individual, had no part in it. ± is over held-out heads.\n"
        + cost(list(results.values()), "run")
    )


_CONDITIONS = (
    "same head, changed contrast",
    "other heads, same contrast",
    "other heads, changed contrast",
)


_AGENTS = {
    "one changed contrast": "each head as it is, and in the one changed contrast that is measured",
    "varied heads": "the same, each head also mirrored and in two other sizes",
    "random contrasts": "varied heads, the moving one in 64 random contrasts: the changed contrast "
    "that is measured is never seen",
}


def registration_section(results: Results) -> str:
    """Target registration errors beside those before and the peer's."""
    agents = {m: found for m in _AGENTS if (found := jobs_of(results, f"{m}/"))}
    first = next(iter(agents.values()))
    heads = _heads(first)
    peer = [r for r in jobs_of(results, "SimpleITK/") if _heads([r])[0] in heads]
    rows = []
    for condition in _CONDITIONS:
        compared = [("before", "before", first)]
        compared += [(f"agent, {m}", "after", found) for m, found in agents.items()]
        for label, when, found in (*compared, ("SimpleITK", "after", peer)):
            of = [r[condition] for r in found]
            seconds = "" if when == "before" else f"{mean_of(c['each_s'] for c in of):.2f}"
            rows.append(
                [
                    condition,
                    label,
                    spread([c[when]["tre_mm"]["mean"] for c in of]),
                    f"{mean_of(c[when]['tre_mm']['median'] for c in of):.2f}",
                    spread([c[when]["rotation_deg"]["mean"] for c in of]),
                    seconds,
                ]
            )
    registrations = sum(r[c]["registrations"] for r in first for c in _CONDITIONS)
    told = "; ".join(f"*{name}*: {_AGENTS[name]}" for name in agents)
    return (
        "The held-out head is the fixed image; the moving one is displaced by a random motion of "
        "up to ±20 mm along and ±20° about each axis. *Same head*: it is itself in another, not "
        "monotone contrast, as a second modality would show it. *Other heads*: the truth is the "
        "rigid motion that fits their AFIDs best, after which the points still lie "
        f"{mean_of(r['misfit_mm'] for r in first):.1f} mm apart: the heads differ. The target "
        "registration error is measured at the AFIDs of the fixed head, against that truth. "
        "*SimpleITK*: its registration by Mattes mutual information (three resolutions, gradient "
        "descent) of the same 2 mm images from the same start; it needs no training. Agents "
        f"differ in what training showed them: {told}.\n\n"
        + table(["images", "what", "error, mm", "median", "rotation, deg", "CPU-s each"], rows)
        + f"\n{registrations} registrations each; held out: {', '.join(heads)}. Other heads' "
        "images were seen in training, the held-out head never. "
        + _registration_verdict(agents, peer)
        + "\n"
        + cost(first, "training")
    )


def _registration_verdict(agents: Mapping[str, Sequence[Mapping]], peer: Sequence[Mapping]) -> str:
    """What the figures say, worst things first."""

    def error(found: Sequence[Mapping], condition: str, when: str = "after") -> float:
        return mean_of(r[condition][when]["tre_mm"]["mean"] for r in found)

    said = []
    for condition in _CONDITIONS:
        best = min(agents, key=lambda m: error(agents[m], condition))
        ours, theirs = error(agents[best], condition), error(peer, condition)
        before = error(agents[best], condition, "before")
        if ours > before / 2:
            said.append(f"{condition}: **no agent is of use** ({ours:.1f} mm at best)")
        else:
            said.append(
                f"{condition}: {ours:.1f} mm at best ({best}), "
                f"{'better' if ours < theirs else 'worse'} than SimpleITK's {theirs:.1f} mm"
            )
    return "; ".join(said) + (
        ". The other ways of training were tried after the first one's figures on this head had "
        "been seen. Three heads, two of them averages, are few: agents seem to recognise the "
        "images they were trained on rather than to compare any two. Where mutual information "
        "works, use it."
    )


def _heads(results: Sequence[Mapping]) -> list[str]:
    """The heads that were held out."""
    return [head for head in data.HEADS if any(f"/{head}/" in r["job"] for r in results)]
