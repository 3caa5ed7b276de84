"""The courier's half: ask the desk, tell the worker, carry what the door released.

Everything here is public or sealed; requests are signed with the courier's TLS
key. A desk that cannot be reached, or refuses, never ends a courier: rounds do
not depend on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from common.arrivals.boundary import contained
from common.desk import desk_pb2 as pb
from common.errors import CairnError, RefusedError, UnreachableError, VerificationError
from common.ledger.records import RefusalDetail
from common.waking import Alarm, Lookout
from site_client.enrol import get_sealed_key, list_peers, put_sealed_keys
from site_client.journal import open_journal
from site_client.keys.news import KeyNews, Newest, PeerNews, SealedNews
from site_client.second_door import Outbox, second_door
from site_client.site import SiteFolder
from site_client.spool import Spool

SHORTEST_S, LACKING_S, SETTLED_S = 1.0, 5.0, 30.0
"""Between two looks: after something changed, at most while we lack the key, at most at all."""
LONGEST_WAIT_S = 300.0
LOOK_S = 0.5
"""Between two looks for released keys where nobody tells of them."""
PATIENCE = 5
"""Failures to reach the desk, some eight minutes, after which that is said once."""
LOG = logging.getLogger("cairn.keys")


@dataclass(frozen=True)
class Look:
    """The state of things, as the desk says.

    Attributes:
        generation: of the newest key; 0: none.
        renew: whether another is wanted.
        behind: sites to which the newest was not sealed yet.
        lacking: whether this site is one of them, or there is no key.
    """

    generation: int
    renew: bool
    behind: frozenset[str]
    lacking: bool


class Pace:
    """The wait until the next look: a tenth of the time in which nothing has changed.

    A site that is away for months must not keep all others asking every second.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._last: Look | None = None

    def after(self, look: Look) -> float:
        """Seconds until the next."""
        now = self._clock()
        if look != self._last:
            self._last, self._since = look, now
        most = LACKING_S if look.lacking else SETTLED_S
        return min(max((now - self._since) / 10, SHORTEST_S), most)


class KeyCarrier:
    """Everything between the enrolment desk and one spool.

    Args:
        site: the site's folder; only ``courier/``, ``spool/`` and site.toml are used.
    """

    def __init__(self, site: SiteFolder) -> None:
        self._site = site
        self._spool = Spool(site.spool)
        self._spool.prepare()
        self._outbox = Outbox(self._spool)
        self._journal = open_journal(site)
        self._given = 0

    @property
    def has_work(self) -> bool:
        """Tell whether released keys wait."""
        return bool(self._outbox.waiting(".keys"))

    def turn(self) -> Look:
        """Carry out what waits, then ask how things stand.

        Raises:
            UnreachableError: nobody answers; what waits goes on waiting.
            CairnError: the desk refuses this site.
        """
        for name in self._outbox.waiting(".keys"):
            self._deliver(name)
        peers = list_peers(self._site)
        newest = peers.federation_key
        sealed = get_sealed_key(self._site, newest.generation) if newest.generation else None
        self._news(peers, sealed).put(self._spool)
        if sealed is not None and sealed.key.generation > self._given:
            self._given = sealed.key.generation
            # Who asks again has given it to the worker; a run may be waiting for that.
            list_peers(self._site)
        unserved = frozenset(p.site for p in peers.peers if p.generation < newest.generation)
        lacking = newest.generation == 0 or self._site.settings().site in unserved
        return Look(newest.generation, newest.renew, unserved, lacking)

    def _deliver(self, name: str) -> None:
        """Hand released keys to the desk; whatever it says of them, they were sent."""
        data = None
        try:
            data = self._outbox.read(name)
            if data is None:
                return
            passed = second_door(self._site).check_keys(data)
            if passed.parts[0].sha256 != Path(name).stem:
                raise RefusedError(
                    "sealed keys under another name", field="name", expected="their digest"
                )
        except CairnError as error:
            LOG.error("a file in the outbox that the door did not write: %s", error)  # noqa: TRY400
            self._journal.refuse("keys", RefusalDetail.of(error), data)
            self._outbox.set_aside(name)
            return
        boxes = () if passed.sealed is None else passed.sealed.boxes
        keys = [
            pb.SealedKey(
                for_site=box.label.for_site,
                from_site=box.label.from_site,
                key_id=box.label.key_id,
                generation=box.label.generation,
                ciphertext=box.box,
                signature=box.signature,
            )
            for box in boxes
        ]
        self._journal.release(
            None,
            passed.data,
            passed.parts,
            passed.checkpoint.size,
            passed.checkpoint.root,
            passed.policy_sha256,
        )
        try:
            put_sealed_keys(self._site, keys)
        except UnreachableError:
            raise
        except CairnError as error:
            LOG.warning("the desk did not keep sealed keys: %s", error)
        self._outbox.remove(name)

    @staticmethod
    def _news(peers: pb.ListPeersReply, sealed: pb.GetSealedKeyReply | None) -> KeyNews:
        newest = peers.federation_key
        key = sealed.key if sealed is not None and sealed.HasField("key") else None
        try:
            return KeyNews(
                newest=Newest(
                    generation=newest.generation, key_id=newest.key_id, renew=newest.renew
                ),
                peers=tuple(
                    PeerNews(
                        site=peer.site,
                        join_request=peer.join_request.decode("utf-8"),
                        generation=peer.generation,
                    )
                    for peer in peers.peers
                ),
                sealed=None
                if key is None
                else SealedNews(
                    for_site=key.for_site,
                    from_site=key.from_site,
                    key_id=key.key_id,
                    generation=key.generation,
                    box=key.ciphertext.hex(),
                    signature=key.signature.hex(),
                ),
            )
        except ValueError as error:
            raise VerificationError(
                "the desk's answer about the federation key cannot be read",
                expected="what desk.proto says",
                got=type(error).__name__,
            ) from error


def keep_carrying(site: SiteFolder, stop: Event) -> None:
    """Until ``stop`` is set: now, at its pace, and at once when something waits.

    After a failure ever less often.
    """
    carrier, pace, pause, silent = KeyCarrier(site), Pace(), SHORTEST_S, 0
    with Alarm(Spool(site.spool).outbox) as alarm:
        lookout = Lookout(LOOK_S, SETTLED_S, notified=alarm.watches)
        while not stop.is_set():
            try:
                with contained("news of the federation key", OSError):
                    pause = pace.after(carrier.turn())
                silent = 0
                _rest(carrier, alarm, lookout, pause, stop)
                continue
            except CairnError as error:
                pause = min(max(2 * pause, SETTLED_S), LONGEST_WAIT_S)
                silent = silent + 1 if isinstance(error, UnreachableError) else 0
                # The courier says so when nobody answers; here only a desk that stays silent
                # is news.
                if silent in (0, PATIENCE):
                    LOG.warning("federation key: %s; next try in %.0f s", error.problem, pause)
            except OSError as error:
                pause = LONGEST_WAIT_S
                LOG.warning("federation key: %s; next try in %.0f s", error.strerror, pause)
            stop.wait(pause)


def _rest(carrier: KeyCarrier, alarm: Alarm, lookout: Lookout, seconds: float, stop: Event) -> None:
    """Sleep until released keys wait, or time is up."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0 and not stop.is_set():
        rung = alarm.wait(min(remaining, lookout.seconds), stop)
        if carrier.has_work:
            lookout.found(notified=rung)
            return
