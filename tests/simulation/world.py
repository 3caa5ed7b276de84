"""One federation under one schedule: lets the faults happen and notes what everybody saw.

A ``Template`` is made once: folders, keys and the course of the same run undisturbed. A
``World`` is a copy of it. Sites are the real worker over real folders; a machine that
crashed is started again at once, the aggregator by resuming the run.
"""

from __future__ import annotations

import random
import shutil
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import Event, RoundFinished, RunFinished, read_events
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.rounds.transport import Arrival
from common.canonical import sha256_hex
from common.crypto.identity import read_signing_key
from common.errors import CairnError
from common.plan import FederationPlan, parse_plan
from common.schedule import schedule
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, decode_order, encode_order
from common.wire.parcel import unwrap, wrap
from common.wire.transport import ENVELOPE_SUFFIX, ORDER, SIGNATURE, sum_part
from site_client.ledger import open_ledger
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker import answering, loop
from site_client.worker.loop import Worker
from tests.federation.conftest import Federation, Time, make_sites_move
from tests.simulation.disks import Crash, Disk, Disks
from tests.simulation.faults import (
    AGGREGATOR,
    LIES_OF_AGGREGATORS,
    LIES_OF_SITES,
    Fault,
    Kind,
)

RUN = "run-1"
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


@dataclass
class Left:
    """What one site let out: every reply that ever lay in its outbox.

    Attributes:
        replies: parcels by the digest of the order's parcel that they answer.
        forged: digests of parcels that the aggregator's conductor never made.
    """

    replies: dict[str, bytes] = field(default_factory=dict)
    forged: set[str] = field(default_factory=set)

    def envelopes(self, digest: str | None = None) -> dict[str, str]:
        """Digest of every envelope that left -> its type."""
        chosen = self.replies.values() if digest is None else [self.replies[digest]]
        return {
            sha256_hex(data): name.removesuffix(ENVELOPE_SUFFIX)
            for reply in chosen
            for name, data in unwrap(reply).items()
            if name.endswith(ENVELOPE_SUFFIX)
        }


class World:
    """A copy of a template, a schedule of faults, and what came of both.

    Attributes:
        left: by site.
        guilty: sites whose answers were bent, by themselves or by a lying aggregator.
        finished: how the run ended; None while it has not.
        surprises: exceptions that nobody declared, as texts.
        crashes: machines that went down and came back.
        unrecorded: what lay in an outbox when its site crashed, and not in its ledger.
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
        self.disks = Disks(
            {name: site.root for name, site in self.sites.items()}
            | {AGGREGATOR: self.federation.root}
        )
        self.chance = random.Random(f"world {seed}")
        self.left = {name: Left() for name in self.sites}
        self.guilty = {f.party for f in faults if f.kind in LIES_OF_SITES + LIES_OF_AGGREGATORS}
        self.finished: RunFinished | None = None
        self.surprises: list[str] = []
        self.unrecorded: list[str] = []
        self.crashes = 0
        self._turns = 0
        self.story: list[str] = []
        self.time = Time()
        self.way = _Way(self)
        self._offset = dict.fromkeys(self.sites, timedelta())

    @property
    def store(self) -> RunStore:
        """The run's folder."""
        return RunStore(self.federation.runs / RUN)

    @property
    def events(self) -> list[Event]:
        """The run's journal."""
        return [event for _, event in read_events(self.store.journal)]

    def whole(self) -> bool:
        """Whether every round counts every site, so that the model must be the undisturbed one."""
        rounds = {e.round: e.sites for e in self.events if isinstance(e, RoundFinished)}
        return all(sites == self.template.sites for sites in rounds.values())

    def run(self) -> None:
        """Conduct the run to its end, resuming it as a coordinator would."""
        RunStore.create(
            self.federation.runs / RUN,
            self.template.plan,
            RunOptions(min_sites=1, wait_s=0, approval_s=0.0),
        )
        with ExitStack() as stack:
            make_sites_move(stack.enter_context(pytest.MonkeyPatch.context()))
            stack.enter_context(self._lying_tags())
            stack.enter_context(self.disks.watched())
            crashes = sum(fault.party == AGGREGATOR for fault in self.faults)
            for _ in range(MOST_RESUMES + crashes):
                self._conduct()
                if self.finished is not None and self.finished.verdict != "FAILED":
                    return
        self.story.append("given up")

    def say(self, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"[{self.way.exchange:3d}] {what}")

    def turn(self, site: str) -> None:
        """Let a site's worker answer what waits; start it again as often as its machine crashes."""
        disk = self.disks.of[site]
        for _ in range(4):
            try:
                with self._clock_of(site), Worker(self.sites[site], threading.Event()) as worker:
                    while worker.turn():
                        continue
            except Crash:
                self.crashes += 1
                self.say(f"{site} crashes at operation {disk.operations}")
                disk.restart(self.chance)
                self._look_at_the_outbox(site)
                self._compare_with_the_ledger(site)
                continue
            except (CairnError, OSError) as error:  # the command's boundary declares both
                self.say(f"{site} ends with {type(error).__name__}: {error}")
                disk.disarm()
                continue
            except Exception:  # noqa: BLE001 (to tell of exactly these is what this is for)
                self.surprise(f"worker of {site}")
                return
            finally:
                self._look_at_the_outbox(site)
            return

    def surprise(self, where: str) -> None:
        """Note an exception that nobody declared."""
        self.surprises.append(f"{where}: {traceback.format_exc(limit=-4)}")
        self.say(f"{where}: an undeclared exception")

    def set_clock(self, site: str, offset: timedelta) -> None:
        """Set a site's clock."""
        self._offset[site] = offset

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
            self.crashes += 1
            self.say(f"the aggregator crashes at operation {disk.operations}")
            disk.restart(self.chance)
        except (CairnError, OSError) as error:
            self.say(f"the aggregator ends with {type(error).__name__}: {error}")
            disk.disarm()
        except Exception:  # noqa: BLE001 (as in ``turn``)
            self.surprise("aggregator")
            disk.disarm()

    def _look_at_the_outbox(self, site: str) -> None:
        """Whatever lies in an outbox has left: the courier may have sent it at once."""
        for path in Spool(self.sites[site].spool).outbox.glob("*.reply"):
            self.left[site].replies.setdefault(path.stem, path.read_bytes())

    def _compare_with_the_ledger(self, site: str) -> None:
        """What has left must be recorded at the very moment of a crash, not only at the end."""
        folder = self.sites[site]
        try:
            with open_ledger(folder, read_signing_key(folder.ledger_key)) as ledger:
                self.unrecorded += [
                    f"{site}: {kind} {digest[:12]} had left at a crash and was not recorded"
                    for digest, kind in self.left[site].envelopes().items()
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

    @contextmanager
    def _lying_tags(self) -> Iterator[None]:
        lies = {(f.party, f.exchange) for f in self.faults if f.kind == "forged tag"}
        honest = answering.tagged

        def tagged(envelopes, key, link):
            return [
                _bent(e) if (e.record.site, self.way.exchange) in lies else e
                for e in honest(envelopes, key, link)
            ]

        with mock.patch.object(answering, "tagged", tagged):
            yield


class _Way:
    """The way between the aggregator and its sites, with what goes wrong on it."""

    def __init__(self, world: World) -> None:
        self.exchange = -1
        self._world = world
        self._node = dict(enumerate(world.sites, start=100))
        self._pending: dict[int, str] = {}
        self._orders: dict[str, list[bytes]] = {name: [] for name in world.sites}
        self._replies: dict[str, list[bytes]] = {name: [] for name in world.sites}
        self._copies = {f.party for f in world.faults if f.kind == "ledger set back"}

    def nodes(self) -> Mapping[int, str]:
        return self._node

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        self.exchange += 1
        world, self._pending = self._world, {}
        world.say(f"orders to {', '.join(self._node[node] for node in parcels)}")
        disk = world.disks.of[AGGREGATOR]
        for fault in self._faults(AGGREGATOR):
            if fault.kind in ("killed", "power cut", "disk full"):
                world.say(str(fault))
                disk.arm(fault.at, fault.kind)
        for node, parcel in parcels.items():
            self._deliver(node, parcel)

    def receive(self) -> Sequence[Arrival]:
        arrivals: list[Arrival] = []
        for node, digest in list(self._pending.items()):
            del self._pending[node]
            arrivals += self._answers(node, digest)
        return arrivals

    def _faults(self, party: str) -> list[Fault]:
        found = [f for f in self._world.faults if (f.exchange, f.party) == (self.exchange, party)]
        return sorted(found, key=lambda fault: fault.kind)

    def _deliver(self, node: int, parcel: bytes) -> None:
        world, site = self._world, self._node[node]
        spool = Spool(world.sites[site].spool)
        kinds = {fault.kind: fault for fault in self._faults(site)}
        for fault in kinds.values():
            world.say(str(fault))
        if self.exchange == 0 and site in self._copies:
            shutil.copytree(world.sites[site].root, world.sites[site].root.with_suffix(".old"))
        if "ledger set back" in kinds and self.exchange:
            self._set_back(world.sites[site])
        for kind, hours in (("clock back", -30), ("clock forward", 30)):
            if kind in kinds:
                world.set_clock(site, timedelta(hours=hours))
        if "old order again" in kinds and self._orders[site]:
            again = self._orders[site]
            spool.put_order(again[kinds["old order again"].at % len(again)])
        if "order lost" in kinds:
            return
        self._orders[site].append(parcel)
        if "order doubled" in kinds:
            spool.put_order(parcel)
        for fault in kinds.values():
            if fault.kind in LIES_OF_AGGREGATORS:
                forged = forge(world, parcel, fault)
                if forged is None:
                    continue
                world.left[site].forged.add(sha256_hex(forged))
                if fault.kind == "question changed":
                    spool.put_order(parcel)
                    world.turn(site)
                parcel = forged
        for fault in kinds.values():
            if fault.kind in ("killed", "power cut", "disk full"):
                world.disks.of[site].arm(fault.at, fault.kind)
        try:
            self._pending[node] = spool.put_order(parcel)
        except Crash:
            world.disks.of[site].restart(world.chance)
            self._pending[node] = spool.put_order(parcel)
        except OSError:
            world.say(f"{site}: the courier's disk is full, the order is lost")
            world.disks.of[site].disarm()

    def _answers(self, node: int, digest: str) -> list[Arrival]:
        world, site = self._world, self._node[node]
        world.turn(site)
        world.disks.of[site].disarm()
        try:
            reply = Spool(world.sites[site].spool).read_reply(digest)
        except OSError:
            reply = None
        kinds = {fault.kind: fault for fault in self._faults(site)}
        if reply is None or "reply lost" in kinds:
            return [Arrival(node, None, ReplyCode.NO_ANSWER)]
        for kind, fault in kinds.items():
            reply = self._bent(site, kind, fault.at, reply)
        self._replies[site].append(reply)
        return [Arrival(node, reply)] * (2 if "reply doubled" in kinds else 1)

    def _bent(self, site: str, kind: Kind, at: int, reply: bytes) -> bytes:
        match kind:
            case "reply altered":
                place = at * 7919 % len(reply)
                return reply[:place] + bytes([reply[place] ^ 1 << at % 8]) + reply[place + 1 :]
            case "old reply again" if self._replies[site]:
                return self._replies[site][at % len(self._replies[site])]
            case "another's reply":
                others = [r[-1] for s, r in self._replies.items() if s != site and r]
                return others[at % len(others)] if others else reply
            case "garbage replied":
                return random.Random(at).randbytes(at * at)
            case "part added":
                return wrap(unwrap(reply) | {"ModelUpdate.note": bytes(at)})
        return reply

    @staticmethod
    def _set_back(site: SiteFolder) -> None:
        """The whole disk of the worker as it was before the run; the spool stays."""
        old = site.root.with_suffix(".old")
        for folder in (site.ledger, site.worker):
            shutil.rmtree(folder)
            shutil.copytree(old / folder.relative_to(site.root), folder)


def forge(world: World, parcel: bytes, fault: Fault) -> bytes | None:
    """What a lying aggregator, which holds the signing key, sends instead of an order."""
    if fault.kind == "garbage ordered":
        return random.Random(fault.at).randbytes(fault.at * 3)
    if fault.kind == "order altered":
        place = fault.at * 7919 % len(parcel)
        return parcel[:place] + bytes([parcel[place] ^ 1]) + parcel[place + 1 :]
    parts = unwrap(parcel)
    header = decode_order(parts[ORDER]).header
    if header.round == 0:
        return None  # nothing is known of the run yet: whatever it says is the run
    changed = _changed(header, parts, world, fault)
    if changed is None:
        return None
    body = encode_order(changed)
    witness = world.federation.witness_key()
    return wrap(parts | {ORDER: body, SIGNATURE: witness.sign(SIGNATURE_CONTEXT + body)})


def _changed(
    header: OrderHeader, parts: dict[str, bytes], world: World, fault: Fault
) -> OrderHeader | None:
    """Other words; sums are changed in the parts."""
    match fault.kind:
        case "sum altered" if sum_part(header.round - 1) in parts:
            name = sum_part(header.round - 1)
            data = parts[name]
            parts[name] = data[:-1] + bytes([data[-1] ^ 1])
            return header.model_copy(update={"sum": sha256_hex(parts[name])})
        case "longer plan":
            plan = plan_of(world.template.plan.rounds.training + 1).canonical().decode()
            return header.model_copy(update={"plan": plan})
        case "round skipped":
            phases = schedule(world.template.plan)
            later = header.round + 1
            if later < len(phases):
                return header.model_copy(update={"round": later, "phase": phases[later]})
        case "another roster":
            out = fault.at % len(header.roster)
            rest = tuple(e for n, e in enumerate(header.roster) if n != out)
            return header.model_copy(update={"roster": rest})
        case "question changed":
            return header.model_copy(update={"deadline_s": header.deadline_s + 1})
    return None


def _bent(envelope: Envelope) -> Envelope:
    tag = getattr(envelope.record, "tag", None)
    if tag is None:
        return envelope
    bent = f"{int(tag, 16) ^ 1:016x}"
    return Envelope(envelope.record.model_copy(update={"tag": bent}), envelope.arrays)


__all__ = ["Disk", "Template", "World"]
