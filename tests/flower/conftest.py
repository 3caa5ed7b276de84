"""A real federation on loopback: Flower's programs, TLS, node authentication, separate processes.

Everything is typed as a person would type it. Only processes started here are
ended, by their ids, also when a test fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PLAN = """
name = "no-op"
kind = "no-op"
seed = 3
[task]
landmarks = ["AC", "PC"]
[model]
roi = 9
width = 4
[experience]
rows = 3
columns = 64
[rounds]
training = {rounds}
quorum = 2
deadline_s = {deadline}
"""
SITES = ("site-a", "site-b", "site-c")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealFederation:
    """Folders and processes of one federation below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.processes: dict[str, psutil.Popen] = {}
        (root / "logs").mkdir()

    def run(self, *words: str, code: int = 0, timeout: float = 120) -> str:
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
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"no {what} within {seconds} s\n" + self.log(
                "aggregator"
            )
            time.sleep(0.05)

    def join(self, site: str) -> None:
        data = self.root / "data" / site
        data.mkdir(parents=True)
        for number in range(3):
            (data / f"case{number}.nii.gz").touch()
            (data / f"case{number}.mrk.json").touch()
        self.run("cairn-aggregator", "invite", site, "--by-mail", "--dir", "federation")
        key = self.root / "federation.key"
        if not key.exists():
            # Always the same: what a sketch of few columns recovers depends on the key.
            key.touch(mode=0o600)
            key.write_text("00112233445566778899aabbccddeeff\n")
        self.run(
            *("cairn-site", "join", f"{site}.invite.toml", "--data", str(data)),
            *("--site-dir", site, "--federation-key", str(key)),
        )

    def admit(self, site: str) -> None:
        self.run("cairn-aggregator", "admit", f"{site}/request.json", "--dir", "federation")

    def start_aggregator(self) -> None:
        self.start("aggregator", "cairn-aggregator", "up", "--dir", "federation")
        self.wait(lambda: "ready" in self.log("aggregator"), "aggregator")

    def start_site(self, site: str) -> None:
        self.start(f"{site}-worker", "cairn-site", "worker", "--site-dir", site)
        self.start(f"{site}-courier", "cairn-site", "courier", "--site-dir", site)

    def write_plan(self, rounds: int, deadline: float) -> str:
        (self.root / "plan.toml").write_text(PLAN.format(rounds=rounds, deadline=deadline))
        return "plan.toml"

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(10)

    def events(self, run: Path) -> list[dict[str, object]]:
        path = run / "events.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def newest_run(self) -> Path:
        return max((self.root / "federation" / "runs").iterdir(), key=lambda p: p.name)

    def stop(self) -> None:
        for process in self.processes.values():
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


@pytest.fixture(scope="session")
def real_class() -> type[RealFederation]:
    """For tests that need a federation of another shape."""
    return RealFederation


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFederation]:
    """Three sites, each a worker and a courier, and an aggregator; running."""
    federation = RealFederation(tmp_path_factory.mktemp("real"))
    address = f"127.0.0.1:{federation.port}"
    try:
        federation.run(
            *("cairn-aggregator", "init", "federation", "--name", "real", "--address", address)
        )
        for site in SITES:
            federation.join(site)
            federation.admit(site)
        federation.start_aggregator()
        for site in SITES:
            federation.start_site(site)
        for site in SITES:
            federation.wait(
                lambda site=site: "online" in federation.log(f"{site}-courier"), f"{site} online"
            )
        yield federation
    finally:
        federation.stop()


@pytest.fixture
def stranger(real: RealFederation) -> Iterator[Path]:
    """A joined site folder that nobody has admitted."""
    name = f"stranger-{time.monotonic_ns() % 10**9}"
    real.join(name)
    yield real.root / name
    shutil.rmtree(real.root / name)
