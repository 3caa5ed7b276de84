"""What is missing and what fell short."""

from tests.benchmarks.pixel_road.sections.machine import whole_road
from tests.benchmarks.pixel_road.sections.tissue import RECALL_TARGET
from tests.benchmarks.pixel_road.sections.wording import CODEC, columns_of, each, of

DEMO_TARGET_S = 60.0


def shortfalls(results, absent):
    short = [f"Not computed for this report: `{study}`." for study in absent]
    for (codec, grain), jobs in columns_of(results.get("recovery", {})).items():
        found = of(jobs, "recall_top")
        if min(found) < RECALL_TARGET:
            short.append(
                f"Recall of the 20,000 most frequent, {CODEC[codec]}, {grain}: "
                f"{each(found, '.4f')}, target {RECALL_TARGET}."
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
        f"{what}: {measured:g}, target {target:g}."
        for what, measured, target in whole_road(results)
        if measured > target
    ]
    short += [
        "No pathologist's reference: what agrees with four antibodies is not diagnosed.",
        "One range for all components (as published) leaves the first component of bright, "
        "similar spectra a single bin: it is nearly constant once divided by intensity.",
    ]
    return "".join(f"- {line}\n" for line in short)
