"""One federation under one schedule: lets the faults happen and notes what everybody saw.

A ``Template`` is made once: folders, keys and the course of the same run undisturbed. A
``World`` is a copy of it. Sites are the real worker over real folders; it runs from order to
order, and is started anew in every exchange that has a fault of its site's. A machine that
crashed is started again at once, the aggregator by resuming the run. A machine that was put
back from a backup has had a life before, whose folder is kept for the laws.
"""

from __future__ import annotations

import random
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import Event, RoundFinished, RunFinished, read_events
from aggregator.rounds.store import RunOptions, RunStore
from common.canonical import sha256_hex
from common.crypto.identity import read_signing_key
from common.errors import CairnError
from common.ledger.layout import Layout
from common.plan import FederationPlan, parse_plan
from common.schedule import schedule
from site_client.ledger import open_ledger
from site_client.restoring import read_lost
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker import loop
from site_client.worker.loop import Worker
from tests.federation.conftest import Federation, Time, make_sites_move
from tests.simulation.backups import Backups, People, speak
from tests.simulation.departures import Left
from tests.simulation.disks import Crash, Disk, Disks
from tests.simulation.faults import (
    AGGREGATOR,
    BEFORE_THE_RUN,
    LIES_OF_AGGREGATORS,
    LIES_OF_SITES,
    RESTORES,
    Fault,
)
from tests.simulation.forging import lying_tags
from tests.simulation.trees import Tree
from tests.simulation.way import Way

MOST_RESUMES = 8


def plan_of(rounds: int) -> FederationPlan:
    """A plan without images: small network, small sketch, a quorum of two."""
    return parse_plan(
        {
            "name": "simulated",
            "kind": "no-op",
            "seed": 3,
            "task": {"landmarks": ["AC", "PC"], "roi": 9},
            "network": {"width": 4},
            "experience": {"rows": 3, "columns": 64},
            "rounds": {"training": rounds, "quorum": 2, "deadline_s": 5.0},
        }
    )


@dataclass(frozen=True)
class Template:
    """A federation before its run.

    Attributes:
        digest: of the model that the run comes to when nothing goes wrong.
    """

    root: Path
    sites: tuple[str, ...]
    plan: FederationPlan
    digest: str

    @classmethod
    def make(cls, root: Path, *, sites: int = 4, rounds: int = 2) -> Template:
        """Found a federation, and see what its run comes to undisturbed."""
        federation = Federation(root / "template")
        names = tuple(f"site-{number:02d}" for number in range(1, sites + 1))
        for name in names:
            federation.add_site(name)
        plan = plan_of(rounds)
        undisturbed = World(cls(root / "template", names, plan, ""), root / "undisturbed", ())
        undisturbed.run()
        if undisturbed.finished is None or undisturbed.finished.verdict != "COMPLETED":
            raise RuntimeError(f"an undisturbed run must complete: {undisturbed.finished}")
        shutil.rmtree(root / "undisturbed")
        return cls(root / "template", names, plan, undisturbed.finished.model_sha256)

    @property
    def exchanges(self) -> int:
        """Orders that an undisturbed run sends."""
        return len(schedule(self.plan))


class World:
    """A copy of a template, a schedule of faults, and what came of both.

    Attributes:
        left: by site.
        guilty: sites whose answers were bent, by themselves or by a lying aggregator.
        finished: how the run ended; None while it has not.
        surprises: exceptions that nobody declared, as texts.
        crashes: machines that went down and came back.
        unrecorded: what lay in an outbox when its site crashed, and not in its ledger.
        receipts: checkpoints of each site, for each of the aggregator's lives: what it knew at
            first (nothing: empty), and what it cosigned then.
        heard_in: the site's life in which each of the latter came.
        held: newest receipt in each site's folder when the aggregator was put back, and in
            which of the site's lives that was.
        began_with: newest receipt in each site's folder when a life of it began.
        waited: what a ledger signed that waited for a person.
        words: what people said yes to: site, its life, digest of what it had lost.
        story: what happened, a line each.
    """

    def __init__(
        self, template: Template, root: Path, faults: Sequence[Fault], seed: int = 0
    ) -> None:
        self.template = template
        self.faults = tuple(faults)
        shutil.copytree(template.root, root)
        self.federation = FederationFolder(root / "federation")
        self.sites = {name: SiteFolder(root / name) for name in template.sites}
        roots = {name: site.root for name, site in self.sites.items()}
        roots[AGGREGATOR] = self.federation.root
        self.disks = Disks(roots)
        (root / "backups").mkdir()
        self.backups = Backups(root / "backups", roots, self.faults)
        self.chance = random.Random(f"world {seed}")
        self.left = {name: Left() for name in self.sites}
        self.guilty = {f.party for f in faults if f.kind in LIES_OF_SITES + LIES_OF_AGGREGATORS}
        self.finished: RunFinished | None = None
        self.surprises: list[str] = []
        self.unrecorded: list[str] = []
        self.receipts: list[dict[str, list[bytes]]] = [{name: [b""] for name in self.sites}]
        self.heard_in: list[dict[str, list[int]]] = [{name: [] for name in self.sites}]
        self.held: list[dict[str, tuple[bytes, int]]] = []
        self.began_with: dict[str, list[bytes]] = {name: [b""] for name in self.sites}
        self.waited: list[str] = []
        self.words: list[tuple[str, int, str]] = []
        self.crashes = 0
        self._turns = 0
        self.story: list[str] = []
        self.time = Time()
        self.way = Way(self)
        self.run_name = "run-1"
        self._people: dict[str, People] = {}
        self._workers: dict[str, Worker] = {}
        self._seen: set[tuple[str, int, int, int]] = set()
        self._offset = dict.fromkeys(self.sites, timedelta())

    @property
    def store(self) -> RunStore:
        """The run's folder."""
        return RunStore(self.federation.runs / self.run_name)

    @property
    def events(self) -> list[Event]:
        """The run's journal."""
        return [event for _, event in read_events(self.store.journal)]

    @property
    def longer_plan(self) -> FederationPlan:
        """The run's plan with a round more."""
        return plan_of(self.template.plan.rounds.training + 1)

    def lives(self, site: str) -> list[SiteFolder]:
        """A site's folders: those that a backup took the place of, and the one that counts."""
        return [*map(SiteFolder, self.backups.was[site]), self.sites[site]]

    def past_federations(self) -> list[FederationFolder]:
        """The aggregator's folders that a backup took the place of, the oldest first."""
        return [FederationFolder(root) for root in self.backups.was[AGGREGATOR]]

    def whole(self) -> bool:
        """Whether every round counts every site, so that the model must be the undisturbed one."""
        rounds = {e.round: e.sites for e in self.events if isinstance(e, RoundFinished)}
        return all(sites == self.template.sites for sites in rounds.values())

    def run(self) -> None:
        """Conduct the run to its end, resuming it as a coordinator would."""
        self.backups.take(BEFORE_THE_RUN)
        self._create_the_run()
        with ExitStack() as stack:
            make_sites_move(stack.enter_context(pytest.MonkeyPatch.context()))
            lies = {(f.party, f.exchange) for f in self.faults if f.kind == "forged tag"}
            stack.enter_context(lying_tags(lambda site: (site, self.way.exchange) in lies))
            stack.enter_context(self.disks.watched())
            crashes = sum(fault.party == AGGREGATOR for fault in self.faults)
            for _ in range(MOST_RESUMES + crashes):
                self._conduct()
                if self.finished is not None and self.finished.verdict != "FAILED":
                    fault = self._put_back_after_the_end()
                    if fault is None:
                        break
                    self.put_back(fault)
            else:
                self.story.append("given up")
        for name in self.sites:
            self.stop(name)
        self.look_at_the_receipts()

    def say(self, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"[{self.way.exchange:3d}] {what}")

    def turn(self, site: str) -> None:
        """Let a site's worker answer what waits, and a person speak whose time has come."""
        self._let(site, "worker", lambda: self._work(site))
        people = self._people.get(site)
        if people is not None and people.is_time(self.way.exchange):
            self.stop(site)
            self._let(site, "person", lambda: self._speak(site, people))
            self._let(site, "worker", lambda: self._work(site))

    def stop(self, site: str) -> None:
        """End a site's worker, if it runs; its next turn starts it anew."""
        worker = self._workers.pop(site, None)
        if worker is not None:
            worker.__exit__(None, None, None)

    def put_back(self, fault: Fault) -> None:
        """Put a machine back as it was; a site's worker is started before the next order comes."""
        party = fault.party
        # What was to fail on the old disk does not fail while people copy to the new one.
        self.disks.of[party].disarm()
        if party == AGGREGATOR:
            self._put_back_the_aggregator(fault)
            return
        self.stop(party)
        self.backups.put_back(fault)
        self.began_with[party].append(_newest_receipt(self.sites[party]))
        self.disks.of[party].remember()
        spoken = self._people.get(party)
        if spoken is None or spoken.patience is not None:  # once told to nobody: for good
            self._people[party] = People.of(fault)
        elif spoken is not None:
            spoken.since = None
        self.say(f"{party} is as before exchange {fault.backup_of}, its spool {fault.spool}")
        self.turn(party)

    def look_at_the_receipts(self) -> None:
        """Note which checkpoint of each site the aggregator has cosigned last."""
        for name, notes in self.receipts[-1].items():
            note = self._receipt_of(name)
            if note != notes[-1]:
                notes.append(note)
                self.heard_in[-1][name].append(self._life(name))

    def surprise(self, where: str) -> None:
        """Note an exception that nobody declared."""
        self.surprises.append(f"{where}: {traceback.format_exc(limit=-4)}")
        self.say(f"{where}: an undeclared exception")

    def set_clock(self, site: str, offset: timedelta) -> None:
        """Set a site's clock."""
        self._offset[site] = offset

    def _create_the_run(self) -> None:
        """Begin the run."""
        options = RunOptions(min_sites=1, wait_s=0, approval_s=0.0)
        RunStore.create(self.store.folder, self.template.plan, options)

    def _put_back_after_the_end(self) -> Fault | None:
        """The next fault that puts the aggregator back later than the run went."""
        return next(
            (
                fault
                for fault in self.faults
                if fault.party == AGGREGATOR
                and fault.kind in RESTORES
                and fault.exchange > self.way.exchange
                and fault not in self.backups.used
                and self.backups.has(fault)
            ),
            None,
        )

    def _put_back_the_aggregator(self, fault: Fault) -> None:
        self.look_at_the_receipts()
        self.held.append(
            {name: (_newest_receipt(site), self._life(name)) for name, site in self.sites.items()}
        )
        self.backups.put_back(fault)
        self.disks.of[AGGREGATOR].remember()
        self.receipts.append({name: [self._receipt_of(name)] for name in self.sites})
        self.heard_in.append({name: [] for name in self.sites})
        self.finished = None
        self.say(f"the aggregator is as before exchange {fault.backup_of}")
        runs = self.federation.runs
        names = sorted(folder.name for folder in runs.iterdir()) if runs.is_dir() else []
        if names:
            self.run_name = names[-1]
        else:
            # Runs are named by the time they begin: nobody begins one of the same name again.
            self.run_name = f"run-{len(self.receipts)}"
            self._create_the_run()

    def _let(self, site: str, who: str, act: Callable[[], None]) -> None:
        """Let somebody act at a site, again as often as its machine crashes meanwhile."""
        disk = self.disks.of[site]
        for _ in range(4):
            try:
                self._insist(site, act)
            except Crash:
                self.crashes += 1
                self.say(f"{site} crashes at operation {disk.operations} ({who})")
                disk.restart(self.chance)
                self._look_at_the_outbox(site)
                self._compare_with_the_ledger(site)
                continue
            except (CairnError, OSError) as error:  # the command's boundary declares both
                self.say(f"{site}: the {who} ends with {type(error).__name__}: {error}")
                disk.disarm()
                disk.release()
                continue
            except Exception:  # noqa: BLE001 (to tell of exactly these is what this is for)
                self.surprise(f"{who} of {site}")
                return
            finally:
                self._look_at_the_outbox(site)
                self._look_whether_it_waits(site)
            return

    def _insist(self, site: str, act: Callable[[], None]) -> None:
        """Act; a worker that ends with an error has ended."""
        try:
            act()
        except BaseException:
            self.stop(site)
            raise

    def _work(self, site: str) -> None:
        with self._clock_of(site):
            if site not in self._workers:
                self._workers[site] = Worker(self.sites[site], threading.Event())
            while self._workers[site].turn():
                continue

    def _speak(self, site: str, people: People) -> None:
        lost = read_lost(self.sites[site])
        if lost is None:
            return  # what they typed before their machine went down was recorded
        self.say(f"a person of {site} says that it was put back: {lost.says}")
        speak(self.sites[site], beside=people.beside)
        self.words.append((site, self._life(site), sha256_hex(lost.note)))

    def _receipt_of(self, site: str) -> bytes:
        path = self.federation.sites / site / "checkpoint.note"
        return path.read_bytes() if path.exists() else b""

    def _life(self, site: str) -> int:
        return len(self.backups.was[site])

    def _conduct(self) -> None:
        disk = self.disks.of[AGGREGATOR]
        self._turns += 1
        try:
            conductor = Conductor(
                self.federation,
                self.store,
                self.way,
                self._turns,
                clock=lambda: self.time.now,
                sleep=self.time.sleep,
            )
            self.finished = conductor.run()
            self.say(f"the run ends: {self.finished.verdict} {self.finished.reason}")
        except Crash as crash:
            if crash.machine != AGGREGATOR:
                raise
            disk.restart(self.chance)
            if self.way.due is not None:
                fault, self.way.due = self.way.due, None
                self.put_back(fault)
                return
            self.crashes += 1
            self.say(f"the aggregator crashes at operation {disk.operations}")
        except (CairnError, OSError) as error:
            self.say(f"the aggregator ends with {type(error).__name__}: {error}")
            disk.disarm()
            disk.release()
        except Exception:  # noqa: BLE001 (as in ``_let``)
            self.surprise("aggregator")
            disk.disarm()

    def _look_at_the_outbox(self, site: str) -> None:
        """Whatever lies in an outbox has left: the courier may have sent it at once."""
        for path in sorted(Spool(self.sites[site].spool).outbox.glob("*.reply")):
            stat = path.stat()
            seen = (str(path), stat.st_ino, stat.st_mtime_ns, self._life(site))
            if seen not in self._seen:  # an outbox grows with every round
                self._seen.add(seen)
                self.left[site].note(path.stem, path.read_bytes(), self._life(site))

    def _look_whether_it_waits(self, site: str) -> None:
        """Note what a ledger signs that lacks records and waits for a person."""
        try:
            lost = read_lost(self.sites[site])
            people = self._people.get(site)
            if people is not None:
                since = self.way.exchange if people.since is None else people.since
                people.since = None if lost is None else since
            if lost is None:
                return
            later = Tree.read(self.sites[site].ledger).records[lost.records :]
            word = [each for each in later if each.payload_sha256 == sha256_hex(lost.note)]
            if len(later) > len(word[:1]):
                self.waited.append(f"{site}: {len(later)} records while it waits for a person")
        except (CairnError, OSError) as error:
            self.say(f"whether {site} waits cannot be told: {error}")

    def _compare_with_the_ledger(self, site: str) -> None:
        """What has left must be recorded at the very moment of a crash, not only at the end."""
        folder = self.sites[site]
        try:
            with open_ledger(folder, read_signing_key(folder.ledger_key)) as ledger:
                self.unrecorded += [
                    f"{site}: {kind} {digest[:12]} had left at a crash and was not recorded"
                    for digest, kind in self.left[site].envelopes(self._life(site)).items()
                    if ledger.find(digest) is None
                ]
        except CairnError as error:
            self.unrecorded.append(f"{site}: {error}")

    @contextmanager
    def _clock_of(self, site: str) -> Iterator[None]:
        offset = self._offset[site]

        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz or UTC) + offset

        with mock.patch.object(loop, "datetime", Clock):
            yield


def _newest_receipt(site: SiteFolder) -> bytes:
    """The newest receipt in a site's folder; empty without any."""
    files = Layout(site.ledger).receipt_files()
    return files[-1].read_bytes() if files else b""


__all__ = ["Disk", "Template", "World"]
