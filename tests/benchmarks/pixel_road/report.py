"""From computed files to ``PIXELS.md`` and its picture. Numbers are copied, never typed.

``pixels.json`` holds every figure the tables are made of; `render` makes the document of it
alone, so that anybody can check that nobody wrote into the document by hand.
"""

import json

from tests.benchmarks.pixel_road import plane
from tests.benchmarks.pixel_road.sections import (
    founding,
    machine,
    scene,
    shortfalls,
    tissue,
    tumour,
)

HEAD = """# The pixel road, measured

Generated from `pixels.json` by `python -m tests.benchmarks.pixel_road report`; do not edit.
{machine}, one thread per process. No figure is from a hospital, and none says that a map is fit
for diagnosis.

```
# tissue; skipped where it is absent
python -m tests.benchmarks.pixel_road run recovery gate tumour --seeds 0 1
# the demonstration, and what stands beside it
python -m tests.benchmarks.pixel_road run demo --seeds 20240 7
python -m tests.benchmarks.pixel_road run k-means speed attack
python -m tests.benchmarks.big_slides --pixels 1e8 -o build/pixel-results
python -m tests.benchmarks.pixel_road report -o deploy/results
```

What has been computed is kept under `build/pixel-results`, one file per setting and seed, and is
not computed again.
"""
SECTIONS = (
    ("A scene of 200 bands: `make demo-pixels`", "demo", scene.demo),
    ("Tissue: what is found in merged tables", "recovery", tissue.recovery),
    ("Tissue: what the gate names against exact counts", "gate", tissue.gate),
    ("Tissue: epithelium against other", "tumour", tumour.tumour),
    ("From bands to a place: the founding paper's experiment", "founding", founding.founding),
    ("From disk to keys and tables", "speed", machine.speed),
    ("The whole road, and slides beyond a machine's memory", "big", machine.big),
    ("What an aggregator without the key can learn", "attack", machine.attack),
)


def write_report(folder, output):
    """Write ``PIXELS.md``, the figures behind it, and its picture below `output`.

    A study of which nothing was computed here keeps the figures that `output` has.
    """
    output.mkdir(parents=True, exist_ok=True)
    before = output / "pixels.json"
    results = _read(before) if before.exists() else {}
    results |= {
        study.name: {r["job"]: r for r in map(_read, sorted(study.glob("*.json")))}
        for study in sorted(folder.iterdir())
        if study.name in STUDIES
    }
    layouts = {job: r.pop("plane") for job, r in results.get("tumour", {}).items() if "plane" in r}
    text = json.dumps(results, sort_keys=True, separators=(",", ":"))
    (output / "pixels.json").write_text(text + "\n", encoding="utf-8")
    (output / "PIXELS.md").write_text(render(json.loads(text)), encoding="utf-8")
    if layouts:
        plane.draw(output / plane.NAME, layouts)


STUDIES = ("attack", "big", "demo", "founding", "gate", "k-means", "recovery", "speed", "tumour")


def render(results):
    """The document; a function of ``pixels.json`` and of nothing else."""
    parts = [HEAD.format(machine=_machine(results))]
    for title, study, write in SECTIONS:
        if results.get(study):
            parts += [f"## {title}\n", write(results)]
    absent = [study for _, study, _ in SECTIONS if not results.get(study)]
    parts += ["## Shortfalls\n", shortfalls.shortfalls(results, absent)]
    return "\n".join(parts)


def _machine(results):
    found = {
        f"{r['cores']} cores, {r['processor']}, Python {r['python'].rpartition('.')[0]}"
        for jobs in results.values()
        for r in jobs.values()
    }
    return "; ".join(sorted(found)) or "Nothing computed"


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))
