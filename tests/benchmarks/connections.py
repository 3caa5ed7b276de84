"""What many connected sites cost the aggregator: ``python -m tests.benchmarks.connections``.

Couriers' connections, each with a node key, TLS 1.3, signed calls and a request journal of its
own, are held by one process against a real SuperLink on loopback: ours, and Flower's own
program as it comes, with the same certificate, the same keys and the same calls. At each count
all connections first keep the rhythm of couriers that are told of orders (a sign of life every
ten seconds, a question every thirty); then, three times, all of them ask at one moment, as
they do when a round begins. The streams of the desk, which tell, are not among them.

The caller shares the cores with what it measures: read ratios, and the load.

    python -m tests.benchmarks.connections [--counts 10 50 200] [--seconds 40] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.rounds.superlink import SuperLink
from common.errors import CairnError, UnreachableError
from common.journal import RequestJournal
from common.journal.identity import CourierIdentity
from common.journal.writer import Site
from site_client.courier.fleet import BEAT_EVERY_S, Fleet
from tests.benchmarks.markdown import table
from tests.programs import Federation, wait_until

OURS, STOCK = "ours", "stock Flower"
ASKS_S = 30.0
BURSTS = 3


class Times:
    """Seconds of each kind of call, from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failed: dict[str, int] = defaultdict(int)

    def take(self, kind: str, call: Callable[[], object]) -> None:
        """Measure one call; one that fails counts as failed, and has no time."""
        began = time.perf_counter()
        try:
            call()
        except CairnError:
            with self._lock:
                self.failed[kind] += 1
            return
        with self._lock:
            self.seconds[kind].append(time.perf_counter() - began)

    def figures(self, kind: str) -> list[str]:
        """Calls, failures, median, 95th percentile and longest, in milliseconds."""
        seconds = sorted(self.seconds[kind])
        if not seconds:
            return ["0", str(self.failed[kind]), "-", "-", "-"]
        late = seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
        chosen = (statistics.median(seconds), late, seconds[-1])
        return [
            str(len(seconds)), str(self.failed[kind]), *(f"{1000 * each:.0f}" for each in chosen)
        ]  # fmt: skip


class Server:
    """A SuperLink of a federation of its own.

    Args:
        root: for its files; made.
        stock: Flower's program as it comes, instead of ours before it.
    """

    def __init__(self, root: Path, *, stock: bool) -> None:
        root.mkdir()
        self._federation = Federation(root)
        self._federation.init()
        self._program = "aggregator"
        pki, flower = root / "federation" / "pki", root / "federation" / "flower"
        if not stock:
            self._federation.start_aggregator(180)
        else:
            self._program = "superlink"
            (flower / "stock.key").write_text("a secret of this run alone")
            self._federation.start(
                "superlink",
                *("flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--ssl-ca-certfile", str(pki / "ca.crt")),
                *("--ssl-certfile", str(pki / "server.crt")),
                *("--ssl-keyfile", str(pki / "server.key")),
                *("--database", str(flower / "stock.db"), "--isolation", "process"),
                *("--superexec-auth-secret-file", str(flower / "stock.key")),
                *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            )
        self.authority = (pki / "ca.crt").read_bytes()
        self.link = SuperLink(f"127.0.0.1:{self.port}", self.authority).__enter__()
        wait_until(
            self._answers, "SuperLink", 180, lambda: self._federation.log(self._program), 0.5
        )

    @property
    def port(self) -> int:
        return self._federation.port

    def _answers(self) -> bool:
        try:
            self.link.nodes()
        except UnreachableError:
            return False
        return True

    def process(self) -> psutil.Process:
        """The program that answers couriers."""
        started = self._federation.processes[self._program]
        for process in (started, *started.children(recursive=True)):
            if any("superlink" in word for word in process.cmdline()):
                return process
        raise AssertionError(self._federation.log(self._program))

    def stop(self) -> None:
        self.link.__exit__(None, None, None)
        self._federation.stop()


def connection(server: Server, folder: Path, number: int) -> Fleet:
    """A courier's connection whose key the SuperLink knows."""
    key = ec.generate_private_key(ec.SECP384R1())
    server.link.register(f"site-{number}", key.public_key())
    journal = RequestJournal(
        folder / f"{number}.jsonl", CourierIdentity.of(key), Site("f", f"site-{number}")
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return Fleet(f"127.0.0.1:{server.port}", server.authority, pem, journal)


def keep_rhythm(fleets: Sequence[Fleet], seconds: float, times: Times) -> None:
    """Every connection as an idle courier that is told: spread over time, each by itself."""
    began = time.monotonic()

    def live(number: int, fleet: Fleet) -> None:
        share = number / len(fleets)
        due = [(began + share * BEAT_EVERY_S, "sign of life"), (began + share * ASKS_S, "question")]
        calls = {"sign of life": (BEAT_EVERY_S, fleet.heartbeat), "question": (ASKS_S, fleet.pull)}
        while due:
            due.sort()
            when, kind = due.pop(0)
            if when > began + seconds:
                continue
            time.sleep(max(0.0, when - time.monotonic()))
            every, call = calls[kind]
            times.take(kind, call)
            due.append((when + every, kind))

    _together([lambda n=n, f=f: live(n, f) for n, f in enumerate(fleets)])


def ask_at_once(fleets: Sequence[Fleet], times: Times) -> float:
    """All connections ask at one moment; seconds until the last has its answer."""
    gate = threading.Barrier(len(fleets) + 1)
    ended: list[float] = []

    def ask(fleet: Fleet) -> None:
        gate.wait()
        times.take("all at once", fleet.pull)
        ended.append(time.perf_counter())

    threads = [threading.Thread(target=ask, args=(fleet,), daemon=True) for fleet in fleets]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return max(ended) - began


def measure(counts: Sequence[int], seconds: float) -> str:
    """Both SuperLinks at every count, in turn; the report."""
    rows: list[list[str]] = []
    loads = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        servers = {}
        for way in (OURS, STOCK):
            servers[way] = Server(Path(name) / way.replace(" ", "-"), stock=way == STOCK)
            stack.callback(servers[way].stop)
        fleets: dict[str, list[Fleet]] = {way: [] for way in servers}
        for count in counts:
            for way, server in servers.items():
                times, opened = Times(), len(fleets[way])
                folder = Path(name) / f"journals-{way}-{count}"
                folder.mkdir()
                for number in range(opened, count):
                    fleet = connection(server, folder, number)
                    stack.callback(fleet.close)
                    fleets[way].append(fleet)
                    times.take("activation", lambda f=fleet: f.activate(None))
                process = server.process()
                loads.append(os.getloadavg()[0])
                before, began = _used(process), time.monotonic()
                keep_rhythm(fleets[way], seconds, times)
                share = 100 * (_used(process) - before) / (time.monotonic() - began)
                whole = [ask_at_once(fleets[way], times) for _ in range(BURSTS)]
                for kind in ("activation", "sign of life", "question", "all at once"):
                    rows.append([str(count), way, kind, *times.figures(kind)])
                memory = process.memory_info().rss / 1e6
                rows[-1] += [f"{1000 * statistics.median(whole):.0f}"]
                rows[-3] += ["", f"{share:.1f} %", f"{memory:.0f} MB"]
                sys.stderr.write(f"{count} connections, {way}: {share:.1f} % of a core\n")
    head = ["connections", "SuperLink", "call", "calls", "failed", "median ms", "95 % ms"]
    head += ["longest ms", "last answer ms", "of a core meanwhile", "resident"]
    loaded = f"load {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores"
    return f"{seconds:.0f} s at each count; {loaded}\n\n" + table(
        head, [row + [""] * (len(head) - len(row)) for row in rows]
    )


def _together(work: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    report = measure(sorted(chosen.counts), chosen.seconds)
    sys.stdout.write(report)
    if chosen.output is not None:
        chosen.output.write_text(report)


if __name__ == "__main__":
    main()
