"""The way between the aggregator and its sites, with what goes wrong on it and at its ends."""

from __future__ import annotations

import random
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from aggregator.rounds.transport import Arrival
from common.canonical import sha256_hex
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap, wrap
from common.wire.transport import RECEIPT
from site_client.site import SiteFolder
from site_client.spool import Spool
from tests.simulation.disks import Crash
from tests.simulation.faults import (
    AGGREGATOR,
    FAILURES,
    LIES_OF_AGGREGATORS,
    RESTORES,
    Fault,
    Kind,
)
from tests.simulation.forging import forge

if TYPE_CHECKING:
    from tests.simulation.world import World


REMEMBERED = 32
"""Old orders and replies of a site that may come again; an endurance's would fill a machine."""


class Way:
    """A transport that lets the faults of the exchange happen which it carries.

    Attributes:
        exchange: the how-manieth orders these are, from 0.
        due: fault by which the aggregator is to be put back, once its process is gone.
    """

    def __init__(self, world: World) -> None:
        self.exchange = -1
        self.due: Fault | None = None
        self._world = world
        self._node = dict(enumerate(world.sites, start=100))
        self._pending: dict[int, str] = {}
        self._orders = {name: deque[bytes](maxlen=REMEMBERED) for name in world.sites}
        self._replies = {name: deque[bytes](maxlen=REMEMBERED) for name in world.sites}
        self._repeated = {f.party for f in world.faults if f.kind.startswith("old ")}
        self._copies = {f.party for f in world.faults if f.kind == "ledger set back"}

    def nodes(self) -> Mapping[int, str]:
        return self._node

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        self.exchange += 1
        world, self._pending = self._world, {}
        world.backups.take(self.exchange)
        world.look_at_the_receipts()
        world.say(f"orders to {', '.join(self._node[node] for node in parcels)}")
        disk = world.disks.of[AGGREGATOR]
        faults = self._faults(AGGREGATOR)
        for fault in faults:
            if fault.kind in RESTORES and fault not in world.backups.used:
                self.due = fault
                disk.kill()
        for fault in faults:
            if fault.kind in FAILURES:
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
        if kinds:
            world.stop(site)
        if self.exchange == 0 and site in self._copies:
            shutil.copytree(world.sites[site].root, world.sites[site].root.with_suffix(".old"))
        for fault in kinds.values():
            world.say(str(fault))
            if fault.kind in RESTORES:
                world.put_back(fault)
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
        if site in self._repeated:
            self._orders[site].append(parcel)
        world.left[site].orders[sha256_hex(parcel)] = unwrap(parcel).get(RECEIPT)
        if "order doubled" in kinds:
            spool.put_order(parcel)
        for fault in kinds.values():
            if fault.kind in LIES_OF_AGGREGATORS:
                forged = forge(parcel, fault, world.federation.witness_key(), world.longer_plan)
                if forged is None:
                    continue
                world.left[site].forged.add(sha256_hex(forged))
                if fault.kind == "question changed":
                    spool.put_order(parcel)
                    world.turn(site)
                parcel = forged
        for fault in kinds.values():
            if fault.kind in FAILURES:
                world.disks.of[site].arm(fault.at, fault.kind)
        try:
            self._pending[node] = spool.put_order(parcel)
        except Crash:
            world.stop(site)
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
        if site not in self._repeated:
            self._replies[site].clear()
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
