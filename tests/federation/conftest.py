"""A federation in one process: real folders, keys, ledgers and doors; no Flower, no sockets."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from aggregator.admin.enrol import admit, create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import Event, RunFinished, read_events
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.rounds.transport import Arrival
from aggregator.start import starting_from
from common.crypto.identity import read_signing_key
from common.crypto.keyed import FederationKey
from common.enrolment import read_request
from common.plan import FederationPlan, parse_plan
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from site_client.decisions.making import Decision, decide
from site_client.join import join
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker.loop import Worker
from site_client.worker.noop import NoOpStudy
from site_client.worker.study import Assignment
from tests.conftest import loosen

Tamper = Callable[[bytes], bytes]


class Time:
    """Goes on when somebody waits; ``at`` what happens then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: list[tuple[float, Callable[[], object]]] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [what for when, what in self.at if when <= self.now]
        self.at = [(when, what) for when, what in self.at if when > self.now]
        for happens in due:
            happens()


class MemoryTransport:
    """Hands parcels to the workers' spools and runs the workers when it is asked for replies.

    ``down`` nodes get nothing, ``silent`` ones answer by their courier's number, and
    ``tamper`` changes what a node sends on its way.
    """

    def __init__(self, sites: Mapping[int, SiteFolder]) -> None:
        self.sites = dict(sites)
        self.down: set[int] = set()
        self.silent: set[int] = set()
        self.tamper: dict[int, Tamper] = {}
        self.sent: dict[int, list[bytes]] = {node: [] for node in sites}
        self._pending: dict[int, str] = {}

    def nodes(self) -> Mapping[int, str]:
        return {n: site.root.name for n, site in self.sites.items() if n not in self.down}

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        self._pending = {
            node: Spool(self.sites[node].spool).put_order(parcel)
            for node, parcel in parcels.items()
        }

    def receive(self) -> Sequence[Arrival]:
        arrivals = []
        for node, digest in list(self._pending.items()):
            del self._pending[node]
            if node in self.silent:
                arrivals.append(Arrival(node, None, ReplyCode.NO_ANSWER))
                continue
            with Worker(self.sites[node], threading.Event()) as worker:
                while worker.turn():
                    continue
            reply = Spool(self.sites[node].spool).read_reply(digest)
            if reply is None:
                arrivals.append(Arrival(node, None, ReplyCode.NO_ANSWER))
                continue
            self.sent[node].append(reply)
            arrivals.append(Arrival(node, self.tamper.get(node, bytes)(reply)))
        return arrivals


class Federation:
    """A coordinator's folder and its sites below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = FederationFolder(root / "federation")
        settings = FederationSettings(name="test", address="127.0.0.1:9443", port=9443)
        create_federation(self.folder, settings, ["127.0.0.1"])
        # One key for all runs of the tests: what a sketch estimates depends on it.
        self.key = FederationKey(hashlib.sha256(b"the key of these tests").digest()[:16])
        self.sites: dict[str, SiteFolder] = {}
        self._turn = 0

    def add_site(
        self,
        name: str,
        *,
        key: FederationKey | None = None,
        admitted: bool = True,
        images: int = 2,
        strict: bool = False,
    ) -> SiteFolder:
        """A site under a loosened policy, or a ``strict`` one under the default policy."""
        data = self.root / "data" / name
        data.mkdir(parents=True)
        for number in range(images):
            (data / f"case{number}.nii.gz").touch()
            (data / f"case{number}.mrk.json").touch()
        site = SiteFolder(self.root / name)
        invite = make_invite(self.folder, name, "0" * 64)
        joined = join(invite, site, data, key or self.key)
        if admitted:
            admit(self.folder, read_request(joined.request))
        if not strict:
            loosen(site)
        self.sites[name] = site
        return site

    def acquaint(self, *names: str, plan: FederationPlan | None = None) -> None:
        """People at these sites (default: all) confirm all others, and approve a plan."""
        keys = {n: read_signing_key(s.ledger_key).public.fingerprint for n, s in self.sites.items()}
        for name in names or self.sites:
            made = [
                Decision.made(event="CONFIRM", person="Ada", peer=other, peer_key=key)
                for other, key in keys.items()
                if other != name
            ]
            if plan is not None:
                fingerprint = plan.fingerprint
                made.append(
                    Decision.made(event="APPROVE", person="Ada", plan_fingerprint=fingerprint)
                )
            decide(self.sites[name], made)

    def transport(self) -> MemoryTransport:
        return MemoryTransport(dict(enumerate(self.sites.values(), start=100)))

    def create_run(
        self,
        plan: FederationPlan,
        name: str = "run-1",
        min_sites: int = 1,
        approval_s: float = 0.0,
    ) -> RunStore:
        """The folder of a run, with the model that its plan starts from if a run here has it."""
        options = RunOptions(min_sites=min_sites, wait_s=0, approval_s=approval_s)
        start = starting_from(self.folder, plan)
        return RunStore.create(self.folder.runs / name, plan, options, start)

    def conduct(
        self, store: RunStore, transport: MemoryTransport, time: Time | None = None
    ) -> RunFinished:
        """A run to its end; with a ``time`` of the test's own, which goes on when it waits."""
        turn = self.turn()
        if time is None:
            return Conductor(self.folder, store, transport, turn, sleep=lambda _: None).run()
        return Conductor(
            self.folder, store, transport, turn, clock=lambda: time.now, sleep=time.sleep
        ).run()

    def turn(self) -> int:
        """A later one than any before."""
        self._turn += 1
        return self._turn

    @staticmethod
    def events(store: RunStore) -> list[Event]:
        return [event for _, event in read_events(store.journal)]


@pytest.fixture(scope="session")
def federation_at() -> type[Federation]:
    """Makes an empty federation below a folder, for fixtures that outlive one test."""
    return Federation


@pytest.fixture
def time() -> Time:
    """A clock that stands still until somebody waits."""
    return Time()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """An empty federation."""
    return Federation(tmp_path)


@pytest.fixture
def three(federation: Federation) -> Federation:
    """A federation of three admitted sites that share one key."""
    for name in ("site-a", "site-b", "site-c"):
        federation.add_site(name)
    return federation


@pytest.fixture
def strict(federation: Federation) -> Federation:
    """Three sites under the default policy; nobody has confirmed or approved anything yet."""
    for name in ("site-a", "site-b", "site-c"):
        federation.add_site(name, strict=True)
    return federation


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A no-op run whose sites send a small step each, so that its weights go somewhere."""
    make_sites_move(monkeypatch)


@pytest.fixture(scope="module")
def moving_here() -> Iterator[None]:
    """The same for all tests of a file, and for what they share."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_sites_move(monkeypatch)
        yield


def make_sites_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the sites of a no-op run answer with steps of their own."""
    honest = NoOpStudy.answer

    def answer(study: NoOpStudy, asked: Assignment) -> list[Envelope]:
        envelopes = honest(study, asked)
        if asked.header.phase != "train":
            return envelopes
        rng = np.random.default_rng([study._subject.seed, asked.header.round])
        update = envelopes[0]
        step = {
            n: rng.integers(-3000, 3001, a.shape, np.int32)
            for n, a in sorted(update.arrays.items())
        }
        return [Envelope(update.record, step), *envelopes[1:]]

    monkeypatch.setattr(NoOpStudy, "answer", answer)


@pytest.fixture(scope="session")
def no_op_plan() -> FederationPlan:
    """Two rounds without training, a small network and a small sketch."""
    return parse_plan(
        {
            "name": "no-op",
            "kind": "no-op",
            "seed": 3,
            "task": {"landmarks": ["AC", "PC"], "roi": 9},
            "network": {"width": 4},
            "experience": {"rows": 3, "columns": 64},
            "rounds": {"training": 2, "quorum": 2, "deadline_s": 5.0},
        }
    )
