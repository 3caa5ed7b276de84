"""What a simulated run costs, phase by phase: time, bytes, memory, disk.

Times are of this machine, with everything on it; the sites of a real federation work beside
each other. Bytes are what would travel.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from aggregator.rounds.events import Event, RoundFinished, RunFinished
from aggregator.rounds.store import RunStore
from aggregator.simulation.relays import RelayTraffic, RelayTransport
from aggregator.simulation.transport import FolderTransport, Traffic
from common.cli import megabytes
from common.schedule import Phase


@dataclass(frozen=True)
class PhaseCost:
    """One round, from its order to its files on disk.

    Attributes:
        sites: that were accepted.
        seconds: of the clock.
        aggregator_s, sites_s: processor time.
        order_bytes, reply_bytes: of all sites together.
        peak_bytes: largest resident size of the aggregator until then, and of its relays.
        down_bytes, up_bytes: between the aggregator and its relays; 0 without any.
    """

    round: int
    phase: Phase
    sites: int
    seconds: float
    aggregator_s: float
    sites_s: float
    order_bytes: int
    reply_bytes: int
    peak_bytes: int
    down_bytes: int = 0
    up_bytes: int = 0


@dataclass
class RoundMeter:
    """Notes what each round costs, as the run's journal tells of it.

    Attributes:
        ways: to the sites; they count what is carried.
        above: the way to relays, if there are any.
    """

    ways: Sequence[FolderTransport]
    above: RelayTransport | None = None
    phases: list[PhaseCost] = field(default_factory=list)
    finished: RunFinished | None = None
    _began: float = field(default_factory=time.monotonic)
    _cpu: float = field(default_factory=time.process_time)

    def __call__(self, event: Event) -> None:
        """Take in an event of the journal."""
        if isinstance(event, RunFinished):
            self.finished = event
        if not isinstance(event, RoundFinished):
            return
        now, cpu = time.monotonic(), time.process_time()
        carried = [way.carried for way in self.ways]
        above = RelayTraffic() if self.above is None else self.above.carried
        self.phases.append(
            PhaseCost(
                event.round,
                event.phase,
                len(event.sites),
                now - self._began,
                cpu - self._cpu,
                sum(each.cpu_us for each in carried) / 1e6,
                sum(each.order_bytes for each in carried),
                sum(each.reply_bytes for each in carried),
                peak_memory(),
                above.down_bytes,
                above.up_bytes,
            )
        )
        self._began, self._cpu = now, cpu
        for way in self.ways:
            way.carried = Traffic()
        if self.above is not None:
            self.above.carried = RelayTraffic()


@dataclass(frozen=True)
class WatchedRun(RunStore):
    """A run whose events somebody hears, beside the journal."""

    hear: Callable[[Event], None] = lambda _: None

    def record(self, event: Event) -> None:
        """Add an event to the journal, and tell of it."""
        super().record(event)
        self.hear(event)


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation came to.

    Attributes:
        made_s: seconds to found the federation and have its sites join.
        sites_peak_bytes: largest resident size of a process of sites.
        federation_bytes, site_bytes: on disk; of one site, the mean.
        relays: how many stood between the aggregator and its sites, in its own process.
        relay_bytes: of one relay's archive on disk, the mean.
        load: of the machine, when it began.
    """

    sites: int
    seed: int
    processes: int
    learner: str
    plan: str
    fingerprint: str
    verdict: str
    reason: str
    exit_code: int
    model_sha256: str
    made_s: float
    phases: tuple[PhaseCost, ...]
    aggregator_peak_bytes: int
    sites_peak_bytes: int
    federation_bytes: int
    site_bytes: int
    load: float
    relays: int = 0
    relay_bytes: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return it for ``--json``; fields are added and never renamed."""
        whole = {name: value for name, value in vars(self).items() if name != "phases"}
        whole["phases"] = [vars(phase) for phase in self.phases]
        return whole


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(
        os.stat(Path(at, name)).st_size  # noqa: PTH116 - of many thousand files
        for at, _, names in os.walk(folder)
        for name in names
    )


def phase_table(outcome: SimulationResult) -> Table:
    """Return a row for each round."""
    table = Table(
        title=f"{outcome.sites} sites, {outcome.plan}: {outcome.verdict}",
        caption="CPU ms: of the aggregator and of a site, for each site.",
        box=None,
        header_style="dim",
        pad_edge=False,
    )
    for heading in (
        "round",
        "phase",
        "sites",
        "seconds",
        "CPU ms",
        "a site's",
        "order kB",
        "reply kB",
        "peak MB",
        *(("relays down kB", "up kB") if outcome.relays else ()),
    ):
        table.add_column(heading, justify="left" if heading == "phase" else "right", no_wrap=True)
    for each in outcome.phases:
        sites = max(1, outcome.sites)
        table.add_row(
            str(each.round),
            each.phase,
            str(each.sites),
            f"{each.seconds:.1f}",
            f"{1e3 * each.aggregator_s / sites:.1f}",
            f"{1e3 * each.sites_s / sites:.1f}",
            f"{each.order_bytes / sites / 1e3:.1f}",
            f"{each.reply_bytes / sites / 1e3:.1f}",
            f"{each.peak_bytes / 1e6:.0f}",
            *(_above(each) if outcome.relays else ()),
        )
    return table


def _above(each: PhaseCost) -> tuple[str, str]:
    """Return what went between the aggregator and all of its relays together, kB."""
    return f"{each.down_bytes / 1e3:.1f}", f"{each.up_bytes / 1e3:.1f}"


def summary(outcome: SimulationResult) -> list[str]:
    """Return the rest, a line each."""
    per_run = sum(each.reply_bytes + each.order_bytes for each in outcome.phases)
    return [
        f"Made in {outcome.made_s:.1f} s, by {outcome.processes} processes of sites; "
        f"load {outcome.load:.1f} when it began.",
        f"Memory: aggregator {megabytes(outcome.aggregator_peak_bytes)}, "
        f"a process of sites {megabytes(outcome.sites_peak_bytes)}.",
        f"Disk after the run: aggregator {megabytes(outcome.federation_bytes)}, "
        f"a site {megabytes(outcome.site_bytes)}.",
        f"Carried to and from a site in the whole run: "
        f"{megabytes(per_run // max(1, outcome.sites))}.",
        *(_of_relays(outcome) if outcome.relays else ()),
        *([f"{outcome.verdict}: {outcome.reason}"] if outcome.reason else []),
        f"Model {outcome.model_sha256[:16] or 'none'}, seed {outcome.seed}.",
    ]


def _of_relays(outcome: SimulationResult) -> list[str]:
    down = sum(each.down_bytes for each in outcome.phases)
    up = sum(each.up_bytes for each in outcome.phases)
    without = sum(each.reply_bytes for each in outcome.phases)
    return [
        f"By {outcome.relays} relays, in the aggregator's process: {megabytes(down)} down, "
        f"{megabytes(up)} up, where {megabytes(without)} came from the sites; "
        f"disk of a relay {megabytes(outcome.relay_bytes)}."
    ]
