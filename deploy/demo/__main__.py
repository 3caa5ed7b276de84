"""``make demo``: a federation of three made-up hospitals on this machine, from nothing to a report.

Types the same commands that a coordinator, three hospitals and an auditor
would type; what it adds is the data, the held-out evaluation and the order.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import tomli_w

from aggregator.report.extras import DrawnSearch, HeldOut, LedgerVerdict, ReportExtras
from aggregator.report.html import summary_json, write_report
from aggregator.report.state import fold
from aggregator.rounds.events import read_events
from common.cli import run as run_command
from common.crypto.keyed import FederationKey, write_federation_key
from common.errors import InputDataError, InternalError
from common.plan import FederationPlan, read_plan
from deploy.demo.data import SUBJECTS, held_out_subjects
from deploy.demo.processes import NICE, Processes

SITES = ("site-a", "site-b", "site-c")
HOSPITALS = "data/hospitals"
"""Folders of images as hospitals have them, held-out subjects included."""
HERE = Path(__file__).resolve().parent
LIMIT_S = 1800.0
PERSON = "the demonstration"
MARKER = ".cairn-demo"


def clean_folder(folder: Path) -> None:
    """Make an empty folder; only one that an earlier demonstration made is emptied.

    Raises:
        InputDataError: it holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise InputDataError(
                "the demonstration will not empty this folder",
                field=str(folder),
                expected="an empty folder, or one of an earlier demonstration",
                advice="Name another with --folder",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def write_plan(source: Path, target: Path, seed: int | None) -> FederationPlan:
    """Return the plan with the seed asked for."""
    data = tomllib.loads(source.read_text(encoding="utf-8"))
    if seed is not None:
        data["seed"] = seed
    target.write_text(tomli_w.dumps(data), encoding="utf-8")
    return read_plan(target)


def write_demo_key(path: Path, seed: int) -> None:
    """Write a federation key made from the seed, so that the same seed gives the same model.

    Sketches hash by the key, and rare-first replay asks the sketches. A hospital makes a
    random one instead: ``cairn-site join --new-federation-key``.
    """
    secret = hashlib.sha256(f"cairn demonstration key {seed}".encode()).digest()[:16]
    write_federation_key(path, FederationKey(secret))


def enrol(processes: Processes, folder: Path, port: int, images: int, data: str = "data") -> None:
    """Make the federation; invite, join and admit every site; start its aggregator.

    Args:
        processes: of the demonstration.
        folder: where they run.
        port: of the aggregator.
        images: that each site will train on, and counts as: its folder is still being filled.
        data: where the sites' folders of images are, below ``folder``.
    """
    processes.run(
        *("cairn-aggregator", "init", "federation", "--name", "demo"),
        *("--address", f"127.0.0.1:{port}"),
    )
    for site in SITES:
        processes.run("cairn-aggregator", "invite", site, "--by-mail", "--dir", "federation")
    processes.start("aggregator", "cairn-aggregator", "up", "--dir", "federation")
    for site in SITES:
        # A hospital's folder is there before it joins; here it fills meanwhile.
        (folder / data / site).mkdir(parents=True, exist_ok=True)
    outputs = processes.run_each(
        (
            *("cairn-site", "join", f"{site}.invite.toml", "--data", f"{data}/{site}"),
            *("--site-dir", site, "--federation-key", "federation.key", "--images", str(images)),
        )
        for site in SITES
    )
    for site in SITES:
        processes.run("cairn-aggregator", "admit", f"{site}/request.json", "--dir", "federation")
    acquaint(processes, dict(zip(SITES, map(told_fingerprint, outputs), strict=True)))
    processes.wait_for_text("aggregator", "ready", 90)


def hold_out(policy: Path, subjects: Sequence[str]) -> None:
    """List a hospital's held-out subjects in its policy, as its people would.

    Raises:
        InternalError: the file that ``join`` writes no longer says what is changed.
    """
    text, before = policy.read_text(encoding="utf-8"), "\nsubjects = []\n"
    if text.count(before) != 1:
        raise InternalError("the default policy reads differently", field=before.strip())
    after = f"\nsubjects = {json.dumps(list(subjects))}\n"
    policy.write_text(text.replace(before, after), encoding="utf-8")


def told_fingerprint(said: str) -> str:
    """Return the fingerprint of a site's ledger key, as ``join`` tells it for the telephone.

    Raises:
        InternalError: ``join`` tells none.
    """
    match = re.search(r"ledger key\s+([0-9a-f]{64})", said)
    if match is None:
        raise InternalError("join does not tell the ledger key's fingerprint")
    return match[1]


def acquaint(processes: Processes, fingerprints: Mapping[str, str]) -> None:
    """Every site confirms the others: what hospitals do by telephone, nobody has to here."""
    others = {
        site: [f"{name}:{key}" for name, key in fingerprints.items() if name != site]
        for site in SITES
    }
    processes.run_each(
        (
            *("cairn-site", "peers", "confirm", *others[site]),
            *("--by", PERSON, "--site-dir", site),
        )
        for site in SITES
    )


def approve(processes: Processes, plan: str) -> None:
    """Approve the plan at every site, where a person would read it (``cairn-site plans show``)."""
    processes.run_each(
        ("cairn-site", "plans", "approve", plan, "--by", PERSON, "--site-dir", site)
        for site in SITES
    )


def start_sites(processes: Processes) -> None:
    """Worker and courier of every site, as separate processes."""
    for site in SITES:
        processes.start(f"{site}-worker", "cairn-site", "worker", "--site-dir", site)
        processes.start(f"{site}-courier", "cairn-site", "courier", "--site-dir", site)


def start_baselines(processes: Processes) -> None:
    """Local-only training of every site and the held-out evaluation, behind the federation."""
    for place, site in enumerate(SITES):
        # One after the other rather than all at once, so that each is judged while others train.
        processes.start(
            f"{site}-local",
            *("cairn-site", "train", "--plan", "plan.toml", "--data", f"data/{site}"),
            *("-o", f"local/{site}", "--set", "data.validation_share=0"),
            nice=NICE + 2 * place,
        )
    sites = [
        word
        for site in SITES
        for word in ("--site", site, f"data/{site}", f"local/{site}/latest/model.safetensors")
    ]
    processes.start(
        "heldout",
        *(sys.executable, "-P", "-m", "deploy.demo.heldout", "--plan", "plan.toml"),
        *("--heldout", "data/heldout", "--runs", "federation/runs", "-o", "heldout.json"),
        *sites,
        nice=NICE,
    )


def audit(processes: Processes) -> tuple[LedgerVerdict, ...]:
    """Audit each site's ledger, with what its courier really sent."""
    outputs = processes.run_each(
        (
            *("cairn-audit", "verify", f"{site}/worker/ledger", "--json"),
            *("--key", f"federation/sites/{site}/ledger.pub"),
            *("--witness", "federation/pki/witness.pub"),
            *("--checkpoint", f"federation/sites/{site}/checkpoint.note"),
            *("--journal", f"{site}/courier/journal.jsonl"),
            *("--courier-key", f"federation/sites/{site}/request.json"),
        )
        for site in SITES
    )
    verdicts = []
    for site, text in zip(SITES, outputs, strict=True):
        ledger = json.loads(text)["ledgers"][0]
        verdicts.append(
            LedgerVerdict(
                site=site,
                records=ledger["records"],
                verdict="intact" if ledger["passed"] else "broken",
                bytes_out=ledger["bytes_out"],
                rounds=ledger["rounds"],
                receipts=ledger["receipts"],
                fingerprint=ledger["key"]["fingerprint"],
            )
        )
    return tuple(verdicts)


def held_out(result: dict[str, object]) -> tuple[HeldOut, DrawnSearch]:
    """Return the held-out evaluation as the report wants it."""
    data = json.loads(json.dumps(result))
    drawn = data["trajectory"]
    image = np.frombuffer(base64.b64decode(drawn["image"]), np.uint8).reshape(drawn["shape"])
    evaluation = HeldOut(
        subjects=data["subjects"],
        federated=tuple((int(number), errors) for number, errors in data["federated"].items()),
        prior_mm=data["prior_mm"],
        local_final=data["local"],
        over_10mm=data["over_10mm"],
    )
    left, right, low, high = drawn["extent_mm"]
    search = DrawnSearch(
        image=image,
        extent_mm=(left, right, low, high),
        path=tuple((x, y, int(level)) for x, y, level in drawn["path"]),
        truth_mm=(drawn["truth_mm"][0], drawn["truth_mm"][1]),
        landmark=drawn["landmark"],
        error_mm=drawn["error_mm"],
        source="ICBM 152 template (McConnell Brain Imaging Centre, MNI, McGill), posed and bent",
    )
    return evaluation, search


def overhead_note(processes: Processes) -> str:
    """Report what the federation's processes needed of memory and processor."""
    peaks, cpu_s = processes.peak_mb, processes.cpu_s
    training = sum(cpu_s.get(f"{site}-worker", 0.0) for site in SITES)
    courier = max(peaks.get(f"{site}-courier", 0.0) for site in SITES)
    worker = max(peaks.get(f"{site}-worker", 0.0) for site in SITES)
    return (
        f"Peak resident memory: a courier {courier:.0f} MB, a worker {worker:.0f} MB, the "
        f"aggregator's programs together {peaks.get('aggregator', 0.0):.0f} MB, "
        f"everything {peaks.get('all', 0.0) / 1000:.1f} GB. Processor time: the three workers "
        f"{training:.0f} s, the three couriers "
        f"{sum(cpu_s.get(f'{site}-courier', 0.0) for site in SITES):.0f} s, the aggregator "
        f"{cpu_s.get('aggregator', 0.0):.0f} s."
    )


def narrate(text: str, began: float) -> None:
    """One line about what happens now."""
    click.secho(f"[{time.monotonic() - began:5.1f} s] {text}", bold=True)


@click.command()
@click.option("--folder", default="build/demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="Another plan.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Of data and training; default: the plan's."
)
@click.option("--port", default=19_443, show_default=True, help="Loopback port of the aggregator.")
def demo(folder: Path, plan_file: Path | None, seed: int | None, port: int) -> None:
    """Run three made-up hospitals and an aggregator here; ends with report.html."""
    began = time.monotonic()
    # Whoever ends the demonstration ends its processes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = folder.resolve()
    clean_folder(folder)
    source = plan_file or HERE.parent / "plans" / "demo.toml"
    plan = write_plan(source, folder / "plan.toml", seed)
    with Processes(folder) as processes:
        narrate("Writing three hospitals' scans, and a federation to join", began)
        processes.start(
            "data", sys.executable, "-P", "-m", "deploy.demo.data", "data", "--seed", str(plan.seed)
        )
        processes.start("warmup", sys.executable, "-P", "-m", "deploy.demo.warmup", "plan.toml")
        write_demo_key(folder / "federation.key", plan.seed)
        enrol(processes, folder, port, SUBJECTS, HOSPITALS)
        for place, site in enumerate(SITES):
            hold_out(folder / site / "policy.toml", held_out_subjects(place))
        approve(processes, "plan.toml")
        processes.wait("data", 300)
        processes.wait("warmup", 300)
        narrate("Starting a worker and a courier at each site", began)
        start_sites(processes)
        start_baselines(processes)
        narrate("The coordinator starts the plan", began)
        processes.run(
            *("cairn-aggregator", "round", "start", "plan.toml", "--dir", "federation"),
            *("--min-sites", "3", "--watch"),
            quiet=False,
        )
        processes.require_alive()
        narrate("Finishing the baselines and the held-out evaluation", began)
        for site in SITES:
            processes.wait(f"{site}-local", LIMIT_S)
        processes.wait("heldout", LIMIT_S)
        narrate("The auditor checks what left each site", began)
        verdicts = audit(processes)
        conclude(folder, plan, processes, verdicts, began)


def conclude(
    folder: Path,
    plan: FederationPlan,
    processes: Processes,
    verdicts: tuple[LedgerVerdict, ...],
    began: float,
) -> None:
    """Report and summary.

    Raises:
        InternalError: a ledger is not intact.
    """
    journal = next((folder / "federation" / "runs").glob("*/events.jsonl"))
    state = fold(event for _, event in read_events(journal))
    evaluation, search = held_out(json.loads((folder / "heldout.json").read_text("utf-8")))
    extras = ReportExtras(
        held_out=evaluation,
        ledgers=verdicts,
        trajectory=search,
        sketch_shape=(plan.experience.rows, plan.experience.columns),
        overhead=overhead_note(processes),
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        seeds=f"data and training {plan.seed}",
        command="make demo",
    )
    write_report(folder / "report.html", state, extras)
    summary = summary_json(state, extras) | {"seconds": round(time.monotonic() - began, 1)}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    errors = summary["error_mm"]
    narrate("Done", began)
    used = {name: round(value, 1) for name, value in sorted(processes.cpu_s.items())}
    (folder / "logs" / "processor-seconds.json").write_text(json.dumps(used, indent=2))
    click.echo(json.dumps({"error_mm": errors}, indent=2))
    for verdict in verdicts:
        click.echo(f"{verdict.site}: {verdict.records} records, {verdict.verdict}")
    click.echo(f"Report: {folder / 'report.html'}")
    if any(verdict.verdict != "intact" for verdict in verdicts):
        raise InternalError("a ledger of the demonstration is not intact")


if __name__ == "__main__":
    run_command(demo)
