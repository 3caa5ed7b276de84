"""From nothing to the first federated result, by what three hospitals and a coordinator type.

Everything is real: the programs as they are installed, on loopback, with keys, TLS,
doors and ledgers. The environment is installed already. What is counted:

* seconds on the wall from the first word typed to the verdict of the run, which on a
  busy machine says little, and seconds of processor time of every process, which say more;
* commands per role, files that a hospital is handed, private keys among them, and ports
  on which a site's processes listen.

The coordinator's commands to a started round are init, up and round start; one more
per site is its invite. Each hospital types join, peers confirm, up and plans approve;
what its staff hear in the one telephone call is read here from what join says. That
every site is ready is looked at by check, which is not counted.

    python -m tests.benchmarks.first_run [--sites 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil

from tests.programs import environment, free_ports

PLAN = Path(__file__).resolve().parents[2] / "deploy" / "plans" / "no-op.toml"
LIMIT_S = 1200.0
SCANS = 3
ROLES = {"cairn-aggregator": "coordinator", "cairn-site": "hospital"}


@dataclass
class Typed:
    """What was typed, by whom, and how long it took.

    Attributes:
        steps: (command, seconds on the wall), in the order in which they ended or were ready.
        commands: by role; of hospitals the commands of one.
    """

    root: Path
    steps: list[tuple[str, float]] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)
    running: dict[str, psutil.Popen] = field(default_factory=dict)

    def run(self, *words: str, counted: bool = True) -> str:
        began = time.monotonic()
        done = subprocess.run(
            words,
            cwd=self.root,
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT_S,
            check=False,
        )
        if counted:
            self._count(words, began)
        if done.returncode:
            print(*(f"{seconds:8.2f} s  {step}" for step, seconds in self.steps), sep="\n")
            sys.exit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name: str, *words: str) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            self.running[name] = psutil.Popen(
                words, cwd=self.root, env=environment(), stdout=log, stderr=subprocess.STDOUT
            )
        self._count(words, None)

    def wait_for(self, name: str, text: str) -> None:
        began = time.monotonic()
        while True:
            ended = self.running[name].poll() is not None  # before its last words are read
            said = (self.root / f"{name}.log").read_text(errors="replace")
            if text in said:
                break
            if ended or time.monotonic() - began > LIMIT_S:
                sys.exit(f"{name} did not come to say {text!r}:\n{said}")
            time.sleep(0.02)
        self.steps.append((f"{name} ready", time.monotonic() - began))

    def _count(self, words: tuple[str, ...], began: float | None) -> None:
        self.commands[ROLES[words[0]]] += 1
        if began is not None:
            short = " ".join(word for word in words[:4] if not word.startswith("-"))
            self.steps.append((short, time.monotonic() - began))

    def processor_s(self) -> float:
        """Of everything that still runs here."""
        total = 0.0
        for parent in self.running.values():
            for process in [parent, *parent.children(recursive=True)]:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            if process.is_running():
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(30)
            except psutil.TimeoutExpired:
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()


@contextmanager
def _typed(root: Path) -> Iterator[Typed]:
    typed = Typed(root)
    try:
        yield typed
    finally:
        typed.stop()


def first_run(root: Path, sites: int) -> dict[str, object]:
    """Type everything; returns what was measured."""
    names = [f"site-{chr(ord('a') + number)}" for number in range(sites)]
    for name in names:
        folder = root / "images" / name
        folder.mkdir(parents=True)
        for number in range(SCANS):
            (folder / f"case{number}.nii.gz").touch()
            (folder / f"case{number}.mrk.json").write_text(LANDMARKS)
    plan = root / "plan.toml"
    plan.write_bytes(PLAN.read_bytes())
    load = os.getloadavg()[0]
    before = os.times()
    with _typed(root) as typed:
        began = time.monotonic()
        address = f"127.0.0.1:{free_ports(4)}"
        typed.run("cairn-aggregator", "init", "fed", "--name", "first", "--address", address)
        typed.start("aggregator", "cairn-aggregator", "up", "--dir", "fed")
        for name in names:
            typed.run("cairn-aggregator", "invite", name, "--dir", "fed")
        typed.wait_for("aggregator", "ready")
        heard = {}
        for name in names:
            words = ["--data", f"images/{name}", "--site-dir", name]
            told = typed.run("cairn-site", "join", f"{name}.invite.toml", *words)
            heard[name] = _fingerprint(told)
        for name in names:
            others = [f"{other}:{key}" for other, key in heard.items() if other != name]
            typed.run("cairn-site", "peers", "confirm", *others, "--by", "IT", "--site-dir", name)
            typed.start(name, "cairn-site", "up", "--site-dir", name)
        for name in names:
            _check(typed, name)
        started = time.monotonic()
        typed.start(
            *("run", "cairn-aggregator", "round", "start", "plan.toml", "--dir", "fed", "--watch")
        )
        typed.wait_for("run", "sites_awaited what=approval")
        fingerprint = _events(root)[0]["plan_fingerprint"][:12]
        for name in names:
            typed.run(
                *("cairn-site", "plans", "approve", fingerprint),
                *("--by", "a physician", "--site-dir", name),
            )
        typed.wait_for("run", "run_finished")
        ended = time.monotonic()
        if "verdict=COMPLETED" not in (said := (root / "run.log").read_text()):
            sys.exit(f"the run was not completed:\n{said}")
        typed.steps += _rounds(root)
        listening = sum(_listening(typed.running[name]) for name in names)
        held = typed.processor_s()
        commands = typed.commands
    after = os.times()
    done = after.children_user + after.children_system
    ended_s = done - before.children_user - before.children_system
    return {
        "seconds_to_first_result": round(ended - began, 1),
        "seconds_of_the_round": round(ended - started, 1),
        "processor_seconds": round(max(ended_s, held), 1),
        "load_average_before": round(load, 1),
        "sites": sites,
        "coordinator_commands": commands["coordinator"],
        "coordinator_commands_without_invites": commands["coordinator"] - sites,
        "commands_per_hospital": commands["hospital"] // sites,
        "files_handed_to_a_hospital": 1,
        "private_keys_handed_over": sum(
            "PRIVATE KEY" in (root / f"{name}.invite.toml").read_text() for name in names
        ),
        "ports_a_site_listens_on": listening,
        "steps": [{"command": name, "seconds": round(s, 2)} for name, s in typed.steps],
    }


LANDMARKS = json.dumps(
    {
        "markups": [
            {
                "type": "Fiducial",
                "coordinateSystem": "LPS",
                "controlPoints": [
                    {"label": "AC", "position": [0.0, 0.0, 0.0]},
                    {"label": "PC", "position": [0.0, 10.0, 0.0]},
                ],
            }
        ]
    }
)


def _fingerprint(told: str) -> str:
    """Of a site's ledger key, as its staff read it aloud."""
    found = re.search(r"ledger key\s+([0-9a-f]{64})", told)
    if found is None:
        sys.exit(f"join does not tell the ledger key's fingerprint:\n{told}")
    return found[1]


def _events(root: Path) -> list[dict]:
    """The journal of the only run."""
    (journal,) = (root / "fed" / "runs").glob("*/events.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def _check(typed: Typed, site: str) -> None:
    """``cairn-site check``; a small disk is no matter here, everything else is."""
    found = json.loads(
        typed.run("cairn-site", "check", "--site-dir", site, "--json", counted=False)
    )
    bad = [fact for fact in found["facts"] if fact["level"] == "bad"]
    if bad:
        sys.exit(f"{site} is not ready: {bad}")


def _rounds(root: Path) -> list[tuple[str, float]]:
    """How long the run's parts took, the waiting for sites and their key too, by its journal."""
    events = _events(root)
    at = {event["event"]: datetime.fromisoformat(event["ts"]) for event in reversed(events)}
    waited = (at["round_started"] - at["run_started"]).total_seconds()
    return (
        [("  of it: waiting", waited)]
        + [
            (f"  of it: round {event['round']} ({event['phase']})", float(event["seconds"]))
            for event in events
            if event["event"] == "round_finished"
        ]
        + [("  of it: the whole run", float(events[-1]["seconds"]))]
    )


def _listening(parent: psutil.Popen) -> int:
    return sum(
        connection.status == psutil.CONN_LISTEN
        for process in [parent, *parent.children(recursive=True)]
        for connection in process.net_connections()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--json", action="store_true", dest="as_json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cairn-first-run-") as scratch:
        measured = first_run(Path(scratch), asked.sites)
    if asked.as_json:
        print(json.dumps(measured, indent=2))
        return
    steps = measured.pop("steps")
    for step in steps:  # type: ignore[attr-defined]
        print(f"{step['seconds']:8.2f} s  {step['command']}")
    for name, value in measured.items():
        print(f"{value!s:>10}  {name.replace('_', ' ')}")


if __name__ == "__main__":
    main()
