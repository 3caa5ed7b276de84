"""The scene's first seed once more by the commands that people type, over a real network.

Three sites with a worker and a courier each and an aggregator, as processes on this
machine: ``round start`` for the pixels, ``codebook build`` and ``label``, ``cairn-site
embed`` of four slices a subject, ``round start`` for the agents, ``cairn-audit verify`` of
every ledger. What the clusters are called comes from the truth of one site, since nobody
sits at the page.
"""

import json
import time
from pathlib import Path

import tomli_w

from aggregator.rounds.store import RunStore
from common.keys.codebook import Codebook
from common.keys.pixel_agreement import read_codec
from deploy.demo.__main__ import (
    approve,
    audit,
    clean_folder,
    enrol,
    start_sites,
    write_demo_key,
)
from deploy.demo.processes import Processes
from deploy.demo_pixels.__main__ import last_round, run_plan
from tests.benchmarks.founding import agents, road
from tests.benchmarks.founding.stacks import SITES
from tests.benchmarks.founding.studies import STUDIES, data_of

PORT = 19_643


def over_commands(name, seed):
    """Figures of the held-out subjects, what was sent, and each process's seconds."""
    study, data = STUDIES[name], data_of(name, seed)
    folder = Path(f"build/founding/{name}-loopback-seed{seed}").resolve()
    clean_folder(folder)
    road.write_slides(folder, data)
    began = time.monotonic()
    with Processes(folder) as processes:
        write_demo_key(folder / "federation.key", seed)
        enrol(processes, folder, PORT, len(data.of(held_out=False, site=0)))
        for site in SITES:
            _allow(folder / site / "policy.toml")
            _use(folder, site, folder / "slides" / site)
        _write(folder / "pixels.toml", road.pixel_plan(data, seed, **study.pixels))
        approve(processes, "pixels.toml")
        start_sites(processes)
        done = last_round(run_plan(processes, folder, "pixels.toml"))
        (folder / "codec.json").write_bytes((done / "codec.json").read_bytes())
        _codebook(processes, folder, done / "keys.safetensors", study.clusters, seed, data)
        _maps(processes, folder, data)
        plan = agents.agent_plan(data, seed, study.agent)
        for site in SITES:
            _use(folder, site, folder / "images" / "maps" / site)
        _write(folder / "agent.toml", plan)
        approve(processes, "agent.toml")
        run = RunStore(run_plan(processes, folder, "agent.toml"))
        verdicts = audit(processes)
    sites = [agents.read(folder / "images" / "maps" / site, plan) for site in SITES]
    held_out = agents.read(folder / "images" / "maps" / "held-out", plan)
    prior = agents.pooled(sites).prior
    figures = agents.judge(agents.weights_of(run), plan, held_out, prior, data.tolerance_mm)
    return {
        "figures": [figures],
        "ledgers_intact": sum(v.verdict == "intact" for v in verdicts),
        "bytes_a_site": max(v.bytes_out for v in verdicts),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_s": round(sum(processes.cpu_s.values()), 1),
    }


def _allow(policy):
    """What hospital IT types before a plan about slides is served."""
    text = policy.read_text(encoding="utf-8")
    records = '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"]'
    text = text.replace('"RoundReport"]', records)
    text = text.replace('"no-op"]', '"no-op", "pixels", "embed"]')
    policy.write_text(text, encoding="utf-8")


def _use(folder, site, data):
    """Make ``data`` the site's folder, as a data manager moves files."""
    place = folder / "data" / site
    if place.is_symlink():
        place.unlink()
    else:
        place.rmdir()
    place.symlink_to(data, target_is_directory=True)


def _write(path, plan):
    path.write_text(tomli_w.dumps(plan.model_dump(mode="json")), encoding="utf-8")


def _codebook(processes, folder, keys, clusters, seed, data):
    processes.run(
        *("cairn-aggregator", "codebook", "build", str(keys), "-o", "unnamed.json"),
        *("--clusters", f"kmeans:{clusters}", "--seed", str(seed)),
    )
    book = Codebook.from_bytes((folder / "unnamed.json").read_bytes())
    names = road.names_of(folder, data, book)
    tumour = ",".join(str(k) for k, name in names.items() if name == road.GROUP)
    processes.run(
        *("cairn-aggregator", "codebook", "label", "unnamed.json", "-o", "codebook.json"),
        *("--group", f"{road.GROUP}={tumour}", "--group", "other=rest"),
    )
    codec = read_codec((folder / "codec.json").read_text(encoding="utf-8"))
    Codebook.from_bytes((folder / "codebook.json").read_bytes(), codec=codec.identity)


def _maps(processes, folder, data):
    for subject in data.subjects:
        site = SITES[subject.site]
        home = folder / ("kept" if subject.held_out else "slides") / site
        path = road.home(folder, "maps", subject)
        said = processes.run(
            *("cairn-site", "embed", *map(str, road.slides_of(home, subject))),
            *("--codebook", "codebook.json", "--group", road.GROUP, "--site-dir", site),
            *("--pixel-mm", str(data.pixel_mm), "-o", str(path), "--json"),
        )
        json.loads(said)
        road.mark(path, subject)
