"""Cairn's programs, typed as a person would type them: for tests that start real processes.

Only processes started here are ended, by their ids, also when a test fails.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests import typed

SITES = ("site-a", "site-b", "site-c")
PORTS = 4  # SuperLink, enrolment, desk, metrics: neighbours unless the settings say otherwise
NO_OP_PLAN = """
name = "no-op"
kind = "no-op"
seed = 3
[task]
landmarks = ["AC", "PC"]
roi = 9
[network]
width = 4
[experience]
rows = 3
columns = 64
[rounds]
training = {rounds}
quorum = {quorum}
deadline_s = {deadline}
"""
# Always the same: what a sketch of few columns recovers depends on the key.
FEDERATION_KEY = "00112233445566778899aabbccddeeff\n"


def environment() -> dict[str, str]:
    """Our own environment, with the programs installed here first; Flower asks nobody anything."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def free_ports(count: int) -> int:
    """The first of ``count`` neighbouring ports that are free now."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first
    raise AssertionError(f"no {count} free ports in a row")


def touch_scans(folder: Path, count: int = 3) -> Path:
    """A folder of images with landmarks, all of them empty files: enough where none is opened."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"case{number}.nii.gz").touch()
        (folder / f"case{number}.mrk.json").touch()
    return folder


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float,
    said: Callable[[], str],
    every: float = 0.05,
) -> None:
    """Fail after ``seconds`` with ``what`` did not come and what was ``said`` instead."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"no {what} within {seconds} s\n{said()}"
        time.sleep(every)


class Programs:
    """Commands that run in ``root`` and, those that go on, write ``logs/NAME.log`` there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: dict[str, psutil.Popen] = {}
        (root / "logs").mkdir()

    def run(self, *words: str, code: int = 0, timeout: float = 300) -> str:
        """A command to its end, which must be ``code``; what it said, errors last."""
        if words[0] in typed.PROGRAMS:
            done = typed.run(words, self.root, environment(), timeout)
        else:
            done = subprocess.run(
                words,
                cwd=self.root,
                env=environment(),
                capture_output=True,
                encoding="utf-8",
                timeout=timeout,
                check=False,
            )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, name: str, *words: str) -> psutil.Popen:
        """A command that goes on; a second one of the same name continues its log."""
        with (self.root / "logs" / f"{name}.log").open("ab") as log:
            self.processes[name] = psutil.Popen(
                words,
                cwd=self.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[name]

    def log(self, name: str) -> str:
        return (self.root / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        wait_until(condition, what, seconds, lambda: self.log("aggregator"))

    def wait_for(self, name: str, text: str, seconds: float = 90) -> None:
        """Until a command that goes on has said ``text``."""
        wait_until(
            lambda: text in self.log(name), f"{text!r} of {name}", seconds, lambda: self.log(name)
        )

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(10)

    def stop(self) -> None:
        """End what still runs: politely, then for good, with its children."""
        for process in reversed(self.processes.values()):
            if process.is_running():
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except psutil.TimeoutExpired:
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()


class Federation(Programs):
    """One federation on loopback, in ``federation``, ``SITE`` and ``data/SITE`` below ``root``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.port = free_ports(PORTS)

    def init(self, *words: str) -> None:
        self.run(
            *("cairn-aggregator", "init", "federation", "--name", "real"),
            *("--address", f"127.0.0.1:{self.port}", *words),
        )

    def start_aggregator(self, seconds: float = 90) -> None:
        self.start("aggregator", "cairn-aggregator", "up", "--dir", "federation")
        self.wait_for("aggregator", "ready", seconds)

    def join(self, site: str, *words: str, data: Path | None = None) -> str:
        """With its invite's token; its scans are empty files unless there are others."""
        self.run("cairn-aggregator", "invite", site, "--dir", "federation")
        return self.join_invited(site, *words, data=data)

    def join_invited(self, site: str, *words: str, data: Path | None = None) -> str:
        data = touch_scans(self.root / "data" / site) if data is None else data
        return self.run(
            *("cairn-site", "join", f"{site}.invite.toml", "--data", str(data)),
            *("--site-dir", site, *words),
        )

    def join_by_mail(self, site: str) -> None:
        """With a request that waits to be admitted, and a federation key that was carried."""
        self.run("cairn-aggregator", "invite", site, "--by-mail", "--dir", "federation")
        data = touch_scans(self.root / "data" / site)
        key = self.root / "federation.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(FEDERATION_KEY)
        self.run(
            *("cairn-site", "join", f"{site}.invite.toml", "--data", str(data)),
            *("--site-dir", site, "--federation-key", str(key)),
        )

    def confirm(self, site: str, *others: str) -> str:
        """What the staff of ``site`` type after the others' have read them their fingerprints."""
        heard = []
        for other in others:
            told = self.run("cairn-site", "peers", "--json", "--site-dir", other)
            fingerprint = json.loads(told)["fingerprint"]
            heard.append(f"{other}:{fingerprint}")
        return self.run(
            "cairn-site", "peers", "confirm", *heard, "--by", "Ada Lovelace", "--site-dir", site
        )

    def acquaint(self, *sites: str) -> None:
        """One telephone call with all of them: every site's staff confirm all others."""
        for site in sites:
            self.confirm(site, *(other for other in sites if other != site))

    def approve(self, plan: str, *sites: str) -> None:
        """A person at each of these sites has read the plan and says yes."""
        for site in sites:
            self.run(
                *("cairn-site", "plans", "approve", plan),
                *("--by", "Ada Lovelace", "--site-dir", site),
            )

    def allow(self, site: str, **words: str) -> None:
        """What a hospital edits in its ``policy.toml``, where a test is about something else."""
        path = self.root / site / "policy.toml"
        text = path.read_text(encoding="utf-8")
        for name, value in words.items():
            text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
            assert found == 1, f"{found} lines of policy.toml set {name}"
        path.write_text(text, encoding="utf-8")

    def admit(self, site: str) -> None:
        self.run("cairn-aggregator", "admit", f"{site}/request.json", "--dir", "federation")

    def start_site(self, site: str) -> None:
        for role in ("worker", "courier"):
            self.start(f"{site}-{role}", "cairn-site", role, "--site-dir", site)

    def write_plan(self, rounds: int, deadline: float, quorum: int = 2) -> str:
        text = NO_OP_PLAN.format(rounds=rounds, quorum=quorum, deadline=deadline)
        (self.root / "plan.toml").write_text(text)
        return "plan.toml"

    def newest_run(self) -> Path:
        return max((self.root / "federation" / "runs").iterdir(), key=lambda p: p.name)

    def events(self, run: Path) -> list[dict[str, object]]:
        """The journal of a run, as far as its lines are whole."""
        path = run / "events.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]
