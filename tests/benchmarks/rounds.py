"""What an exchange without training costs: told, asked for, and by a stock Flower federation.

Three federations of three sites each run beside one another on loopback: one in which
everybody is told, one in which everybody asks (``CAIRN_POLL=1``), and Flower's own programs
as they come, without TLS, with as many bytes in a NumPy array. They take turns, so that all
meet the same load, which is printed. Then nobody does anything for a while, and what each
program uses meanwhile is read from the kernel.

    python -m tests.benchmarks.rounds [--turns 3] [--rounds 8] [--idle 30] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from common.waking import POLL_VARIABLE
from tests.benchmarks.markdown import table
from tests.programs import SITES, Federation, Programs, free_ports, wait_until

PAYLOAD_BYTES = 182_000
TOLD, ASKED, STOCK = "told", "asked for", "stock Flower"
_STOCK_PROJECT = """
[project]
name = "stock"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "stock"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "stock.app:server"
clientapp = "stock.app:client"
[tool.flwr.app.config]
rounds = 1
out = ""
"""
_STOCK_APP = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

def content():
    return RecordDict({"all": ArrayRecord({"bytes": Array(np.zeros(SIZE, np.uint8))})})

@client.train()
def train(message, context):
    return Message(content(), reply_to=message)

@server.main()
def main(grid, context):
    seconds = []
    while len(list(grid.get_node_ids())) < 3:
        time.sleep(0.2)
    for _ in range(int(context.run_config["rounds"])):
        began = time.monotonic()
        nodes = list(grid.get_node_ids())
        replies = list(grid.send_and_receive(
            [Message(content(), node, "train") for node in nodes], timeout=120.0))
        assert len(replies) == 3 and all(r.has_content() for r in replies)
        seconds.append(time.monotonic() - began)
    Path(context.run_config["out"]).write_text(json.dumps(seconds))
"""


@contextmanager
def variable(name: str, value: str | None) -> Iterator[None]:
    """The environment that programs are started in, with one variable more."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


class Ours:
    """One of our federations; told, or everybody asks."""

    def __init__(self, root: Path, *, polls: bool) -> None:
        self._polls = "1" if polls else None
        root.mkdir()
        self.programs = Federation(root)

    def start(self) -> None:
        federation = self.programs
        with variable(POLL_VARIABLE, self._polls):
            federation.init()
            federation.start_aggregator()
            federation.join(SITES[0], "--new-federation-key")
            for name in SITES[1:]:
                federation.join(name)
            federation.acquaint(*SITES)
            for name in SITES:
                federation.allow(name, approval='"bounded"')
                federation.start_site(name)
            for name in SITES:
                federation.wait_for(f"{name}-courier", "online")
            federation.wait(self._keyed, "federation keys", 180)

    def _keyed(self) -> bool:
        keys = [self.programs.root / name / "worker" / "keys" for name in SITES[1:]]
        return all(any(folder.glob("*.key")) for folder in keys)

    def run(self, rounds: int) -> tuple[list[float], int]:
        """Seconds of each exchange, from the order until the round is on the disk; bytes back."""
        plan = self.programs.write_plan(rounds=rounds, deadline=120)
        told = self.programs.run(
            *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
            *("--min-sites", "3", "--watch"),
        )
        assert "verdict=COMPLETED" in told, told
        events = self.programs.events(self.programs.newest_run())
        finished = [e for e in events if e["event"] == "round_finished" and e["phase"] == "train"]
        replies = [e for e in events if e["event"] == "site_replied" and e["round"] == 1]
        assert len(finished) == rounds
        return [float(str(e["seconds"])) for e in finished], int(str(replies[0]["bytes"]))


class Stock:
    """Flower's own programs, as they come."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.programs = Programs(root)
        self._port = free_ports(6)
        self._home = root / "home"

    def start(self) -> None:
        app = self.programs.root / "app" / "stock"
        app.mkdir(parents=True)
        (app.parent / "pyproject.toml").write_text(_STOCK_PROJECT)
        (app.parent / "LICENSE").write_text("MIT\n")
        (app / "__init__.py").touch()
        code = textwrap.dedent(_STOCK_APP).replace("SIZE", str(PAYLOAD_BYTES))
        (app / "app.py").write_text(code)
        self._home.mkdir()
        link = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{self._address}"\n'
        (self._home / "config.toml").write_text(link + "insecure = true\n")
        with variable("FLWR_HOME", str(self._home)):
            self.programs.start(
                "superlink",
                *("flower-superlink", "--insecure", "--host", "127.0.0.1"),
                *("--port", str(self._port), "--disable-runtime-dependency-installation"),
            )
            wait_until(self._answers, "SuperLink", 180, lambda: self.programs.log("superlink"))
            for number in range(1, 4):
                self.programs.start(
                    f"supernode-{number}",
                    *("flower-supernode", "--insecure", "--superlink", self._address),
                    *("--host", "127.0.0.1", "--port", str(self._port + number)),
                )

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    @property
    def _address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def run(self, rounds: int) -> tuple[list[float], int]:
        """Seconds of each exchange as the ServerApp sees it; bytes back."""
        out = self.programs.root / f"seconds-{time.monotonic_ns()}.json"
        with variable("FLWR_HOME", str(self._home)):
            self.programs.run(
                *("flwr", "run", str(self.programs.root / "app"), "here"),
                *("--run-config", f'rounds={rounds} out="{out}"'),
            )
        end = time.monotonic() + 300
        while not out.exists():
            assert time.monotonic() < end, self.programs.log("superlink")[-2000:]
            time.sleep(0.1)
        time.sleep(0.2)
        return json.loads(out.read_text()), PAYLOAD_BYTES


def idle(programs: Programs, seconds: float) -> list[list[str]]:
    """What each program of a federation uses while nothing is to be done."""
    processes = {}
    for name, program in programs.processes.items():
        processes[name] = program
        for child in program.children(recursive=True):
            try:
                words = child.cmdline()
            except psutil.NoSuchProcess:
                continue  # it has just ended
            part = next((w for w in words if "superlink" in w or "superexec" in w), "child")
            processes[f"{name}: {Path(part).name}"] = child
    before = {name: cpu(process) for name, process in processes.items()}
    time.sleep(seconds)
    processes = {name: process for name, process in processes.items() if process.is_running()}
    return [
        [
            name,
            f"{100 * (cpu(process) - before[name]) / seconds:.2f} %",
            f"{process.memory_info().rss / 1e6:.0f} MB",
        ]
        for name, process in processes.items()
    ]


def spent(programs: Programs) -> float:
    """Seconds of processor time of all programs, and of what they started and ended."""
    total = 0.0
    for program in programs.processes.values():
        for process in (program, *program.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # its parent has its time by now
            total += times.user + times.system + times.children_user + times.children_system
    return total


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def measure(turns: int, rounds: int, idle_s: float) -> str:
    """All federations in turn, then nothing; the report."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        federations = {
            TOLD: Ours(root / "told", polls=False),
            ASKED: Ours(root / "asked", polls=True),
            STOCK: Stock(root / "stock"),
        }
        try:
            for federation in federations.values():
                federation.start()
            medians: dict[str, list[float]] = {name: [] for name in federations}
            least: dict[str, list[float]] = {name: [] for name in federations}
            used: dict[str, list[float]] = {name: [] for name in federations}
            sizes, loads = {}, []
            for _ in range(turns):
                for name, federation in federations.items():
                    loads.append(os.getloadavg()[0])
                    before = spent(federation.programs)
                    seconds, sizes[name] = federation.run(rounds)
                    used[name].append((spent(federation.programs) - before) / rounds)
                    medians[name].append(statistics.median(seconds))
                    least[name].append(min(seconds))
                    told = " ".join(f"{value:.3f}" for value in seconds)
                    sys.stderr.write(f"{name}: {told} s; processor {used[name][-1]:.2f} s each\n")
            rows = [
                [
                    name,
                    f"{statistics.median(medians[name]):.3f} s",
                    f"{min(least[name]):.3f} s",
                    f"{statistics.median(used[name]):.2f} s",
                    " ".join(f"{value:.3f}" for value in medians[name]),
                    f"{sizes[name]:,} B",
                ]
                for name in federations
            ]
            head = ["federation", "median exchange", "shortest", "processor, run by exchanges"]
            head += ["medians of the turns", "a reply"]
            loaded = f"load {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores"
            parts = [f"{turns} turns of {rounds} exchanges, three sites; {loaded}\n"]
            parts.append(table(head, rows))
            for name in (TOLD, ASKED):
                parts.append(f"idle for {idle_s:.0f} s, {name}:\n")
                rows = idle(federations[name].programs, idle_s)
                parts.append(table(["program", "of a core", "resident"], rows))
            return "\n".join(parts)
        finally:
            for federation in federations.values():
                federation.programs.stop()


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--idle", type=float, default=30.0)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    report = measure(chosen.turns, chosen.rounds, chosen.idle)
    sys.stdout.write(report)
    if chosen.output is not None:
        chosen.output.write_text(report)


if __name__ == "__main__":
    main()
