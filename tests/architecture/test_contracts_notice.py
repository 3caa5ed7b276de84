"""Every import contract can fail: what breaks it is planted in a copy, and lint says so.

A contract whose sources were typed by hand once let five of seven such imports pass.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "site_client", "aggregator", "deploy")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = [contract["name"] for contract in SETTINGS["tool"]["importlinter"]["contracts"]]


class Plant(NamedTuple):
    """One import that may not be, by the path of its file."""

    file: str
    module: str

    @property
    def importer(self) -> str:
        return self.file.removesuffix(".py").replace("/", ".")


# What sources typed by hand once let pass, and one import of every room with much to lose.
NOTICED = [
    Plant("site_client/pixels/reading.py", "site_client.egress.outbox"),
    Plant("site_client/enrol.py", "site_client.egress.outbox"),
    Plant("site_client/checks.py", "SimpleITK"),
    Plant("aggregator/start.py", "flwr"),
    Plant("site_client/join.py", "flwr"),
    Plant("site_client/egress/gate.py", "site_client.agent.learner"),
    Plant("site_client/agent/learner.py", "grpc"),
    Plant("site_client/agent_app/training.py", "grpc"),
    Plant("aggregator/service.py", "torch"),
    Plant("site_client/keys/keeper.py", "site_client.enrol"),
    Plant("common/canonical.py", "socket"),
    Plant("site_client/worker/training.py", "asyncio"),
]

BREAKS = {
    "The roles may know common, never each other; the demo may know all": Plant(
        "aggregator/intake/outliers.py", "site_client.files"
    ),
    "No two rooms need each other": Plant("common/errors.py", "common.canonical"),
    "common stays light: no torch, Flower, images, pages": Plant("common/model.py", "scipy"),
    "Only one place makes pages of templates": Plant("aggregator/report/text.py", "jinja2"),
    "Only who writes a page of a template goes there; nothing in common does": Plant(
        "common/audit/report.py", "common.page.templates"
    ),
    "The aggregator runs without torch and never opens an image": Plant(
        "aggregator/intake/reply.py", "PIL"
    ),
    "No pickle anywhere": Plant("deploy/demo/data.py", "pickle"),
    "Only the agent, and what attacks it, compute with torch": Plant(
        "site_client/worker/study.py", "torch"
    ),
    "Only site_client.imaging opens images": Plant("site_client/agent/replay.py", "SimpleITK"),
    "Only the pixel reader opens slides": Plant("site_client/pixels/slides.py", "tifffile"),
    "Only one place reads Zarr": Plant("site_client/pixels/slides.py", "zarr"),
    "Only the shards' own command speaks to a Dask scheduler": Plant(
        "site_client/worker/slide_shards.py", "distributed"
    ),
    "Only the courier, aggregator.rounds and the app that Flower starts speak Flower": Plant(
        "aggregator/desk/desk.py", "flwr"
    ),
    "Only the courier, aggregator.rounds and who asks a witness speak HTTP": Plant(
        "common/witness/policy.py", "h11"
    ),
    "Only the courier's half of witnessing, and an auditor, ask witnesses": Plant(
        "site_client/status.py", "common.witness.client"
    ),
    "The courier's half of witnessing has no door, no secret of the worker, and no log": Plant(
        "site_client/witnesses/answers.py", "common.ledger.log"
    ),
    "Only the desks speak gRPC": Plant("site_client/enrol.py", "grpc"),
    "Only who calls or answers at a desk knows its messages": Plant(
        "site_client/join.py", "common.desk.desk_pb2"
    ),
    "Sockets are opened only in the named places": Plant("site_client/status.py", "socket"),
    "No other way to a network": Plant("site_client/notify.py", "urllib.request"),
    "Only the door reaches the outbox": Plant("site_client/spool.py", "site_client.egress.outbox"),
    "Only the road of an order holds the door: no study and no rehearsal": Plant(
        "site_client/worker/dry_run.py", "site_client.egress.release"
    ),
    "The worker, its door and a person's decisions do no networking": Plant(
        "site_client/files.py", "site_client.probe"
    ),
    "The door knows no agent and sees no image": Plant(
        "site_client/egress/history.py", "site_client.imaging.volumes"
    ),
    "The courier sees no images, no agent, no first door, no federation key, writes no ledger": (
        Plant("site_client/courier/newcomer.py", "common.ledger.log")
    ),
    "The courier's half of key sharing has no door and no place where keys lie": Plant(
        "site_client/keys/news.py", "site_client.keys.ring"
    ),
    "The courier and its half of key sharing open nothing that is sealed": Plant(
        "site_client/keys/carry.py", "common.crypto.sealing"
    ),
    "The agent on its own knows no federation": Plant(
        "site_client/imaging/volumes.py", "site_client.spool"
    ),
    "What attacks read has no way out: no door, no wire, no ledger, no network": Plant(
        "site_client/exposure/scoring.py", "common.wire.records"
    ),
    "What shows patients to the site has no way out: no door, no wire, no ledger, no network": (
        Plant("site_client/facts.py", "site_client.spool")
    ),
    "The agent's own commands stand on six floors": Plant(
        "site_client/agent_app/config.py", "site_client.agent_app.training"
    ),
    "Kinds of task stand on the agent and on images, and know no command, no file of a run": (
        Plant("site_client/kinds/kind.py", "site_client.agent_app.config")
    ),
    "Attacks read only in a rehearsal": Plant(
        "site_client/worker/loop.py", "site_client.exposure.examine"
    ),
}

# Rooms whose contract lists what they may not know must list every other room of the house.
KNOWN_ROOMS = {
    "site_client/courier/outage.py": {
        "courier",
        "files",
        "journal",
        "probe",
        "second_door",
        "site",
        "spool",
    },
    "site_client/exposure/scoring.py": {"exposure", "agent", "imaging", "files"},
    "site_client/data_check/page.py": {"data_check", "facts", "imaging", "pixels", "files"},
}


class Copy:
    """The sources alone, in a folder where imports may be planted.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(ROOT / "pyproject.toml", root)
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
            )

    @contextmanager
    def planted(self, plants: Iterable[Plant]) -> Iterator[None]:
        """Append the imports, and take them out again."""
        whole = {plant.file: (self.root / plant.file).read_text("utf-8") for plant in plants}
        try:
            for file, module in plants:
                with (self.root / file).open("a", encoding="utf-8") as stream:
                    stream.write(f"\nimport {module}\n")
            yield
        finally:
            for file, text in whole.items():
                (self.root / file).write_text(text, encoding="utf-8")

    def lint(self) -> str:
        """Run the contracts over this copy; what they print, on long lines."""
        program = (
            "import sys; from importlinter.cli import lint_imports_command as run;"
            "sys.path.insert(0, '.'); run(['--no-cache'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.root,
            env={"COLUMNS": "400", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert "Contracts: " in done.stdout, done.stdout + done.stderr
        assert (done.returncode == 0) == (not broken_in(done.stdout))
        return done.stdout


def broken_in(printed: str) -> set[str]:
    return {name for name in CONTRACTS if re.search(rf"^{re.escape(name)} BROKEN", printed, re.M)}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def test_the_house_as_it_stands_keeps_every_contract(copy):
    assert not broken_in(copy.lint())


def test_every_contract_has_an_import_that_breaks_it():
    assert sorted(BREAKS) == sorted(CONTRACTS)
    assert len(set(CONTRACTS)) == len(CONTRACTS)


def test_every_contract_fails_when_all_are_broken_at_once(copy):
    with copy.planted(BREAKS.values()):
        assert broken_in(copy.lint()) == set(CONTRACTS)


@pytest.mark.slow
@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_fails_on_its_own_import_alone(copy, contract):
    with copy.planted([BREAKS[contract]]):
        assert contract in broken_in(copy.lint())


def test_every_planted_import_is_named(copy):
    with copy.planted(NOTICED):
        printed = copy.lint()
    for plant in NOTICED:
        assert re.search(rf"{re.escape(plant.importer)} -> {plant.module} \(", printed), plant


@pytest.mark.slow
@pytest.mark.parametrize("plant", NOTICED, ids=lambda plant: f"{plant.importer}<-{plant.module}")
def test_lint_fails_for_one_planted_import(copy, plant):
    with copy.planted([plant]):
        assert broken_in(copy.lint())


@pytest.mark.parametrize("file", KNOWN_ROOMS)
def test_a_room_that_may_know_few_others_is_refused_every_other(copy, file):
    rooms = {path.stem for path in (ROOT / "site_client").glob("[!_]*")}
    others = [Plant(file, f"site_client.{room}") for room in sorted(rooms - KNOWN_ROOMS[file])]
    with copy.planted(others):
        printed = copy.lint()
    for plant in others:
        assert f"{plant.importer} -> {plant.module} (" in printed, plant


@pytest.mark.parametrize("module", ["site_client.egress.outbox", "SimpleITK", "flwr", "torch"])
def test_a_room_of_tomorrow_is_refused_what_few_may_import(copy, module):
    room = copy.root / "site_client" / "tomorrow.py"
    room.write_text(f"import {module}\n", encoding="utf-8")
    try:
        assert broken_in(copy.lint())
    finally:
        room.unlink()
