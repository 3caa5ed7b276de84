"""Sites and the desk's own service in one process: every rule of the desk, no socket."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggregator.admin.enrol import create_federation, revoke
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import enrol, make_invite
from aggregator.desk import enrolment
from common.audit.load import Audited, audit
from common.crypto.certificates import read_tls_key
from common.crypto.identity import read_signing_key
from common.crypto.keyed import FederationKey
from common.desk import desk_pb2 as pb
from common.desk.signing import TlsSigner, sign_request
from common.enrolment import read_request
from common.errors import UnreachableError
from common.journal import Evidence
from common.ledger.records import LedgerRecord, parse_record
from site_client.decisions.making import Decision, decide
from site_client.files import write_atomically
from site_client.join import join
from site_client.keys import carry
from site_client.keys.carry import KeyCarrier
from site_client.keys.ring import Held, KeyRing
from site_client.site import SiteFolder
from site_client.worker.loop import Worker


class Site:
    """One site: its worker, its courier's half of the keys, and what they can be asked."""

    def __init__(self, folder: SiteFolder) -> None:
        self.folder = folder
        self.carrier = KeyCarrier(folder)
        self._worker: Worker | None = None

    @property
    def name(self) -> str:
        return self.folder.settings().site

    @property
    def worker(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(self.folder, threading.Event())
        return self._worker

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.__exit__(None, None, None)
            self._worker = None

    def hear(self) -> None:
        """The courier carries and asks; the worker sees to what it brought."""
        self.carrier.turn()
        self.worker.turn()

    def wait(self, seconds: float) -> None:
        """Let the keeper believe that this time has passed."""
        giving = self.worker._keeper._giving
        before = giving._clock
        giving._clock = lambda: before() + seconds

    def held(self) -> Held | None:
        return KeyRing(self.folder).newest()

    def key_id(self) -> str:
        held = self.held()
        return "" if held is None else held.key.key_id

    def records(self) -> list[LedgerRecord]:
        lines = (self.folder.ledger / "log.jsonl").read_bytes().splitlines()
        return [parse_record(line) for line in lines]

    def sent(self) -> list[LedgerRecord]:
        return [r for r in self.records() if r.record_type == "SealedKeys"]

    def refusals(self) -> list[LedgerRecord]:
        return [r for r in self.records() if r.event == "REFUSE"]

    def receivers(self) -> set[str]:
        """To whom this site's ledger says that it sealed a key."""
        return {a.name.split(":")[0] for r in self.sent() for a in r.arrays or ()}

    def audit(self) -> Audited:
        """Of the ledger, and of the courier's journal where it sent anything."""
        journal = self.folder.journal
        key = self.folder.root / "ledger.pub"
        key.write_text(read_signing_key(self.folder.ledger_key).public.text)
        return audit(
            self.folder.ledger,
            key_file=key,
            witness_file=self.folder.witness_key,
            courier=Evidence(journal) if journal.exists() else None,
        )

    def write_policy(self, keys: str) -> None:
        text = self.folder.policy_file.read_text()
        changed = re.sub(r'^share = "\w+"$', keys, text, flags=re.MULTILINE)
        write_atomically(self.folder.policy_file, changed.encode())

    def decide(self, event: str, **words: str) -> None:
        """As a person's command does, whether or not the worker runs."""

        def turn(_: float) -> None:
            self.worker._record_decisions()

        made = [Decision.made(event=event, person="M. Curie", **words)]
        decide(self.folder, made) if self._worker is None else decide(self.folder, made, turn)

    def confirm(self, *others: Site) -> None:
        for other in others:
            self.decide("CONFIRM", peer=other.name, peer_key=other.fingerprint)

    @property
    def fingerprint(self) -> str:
        return read_signing_key(self.folder.ledger_key).public.fingerprint


class Desk:
    """The enrolment desk's own code; every byte it is sent and says is kept.

    Attributes:
        lie: given (method, reply), returns what is said instead.
        down: nobody answers.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = FederationFolder(root / "aggregator")
        settings = FederationSettings(name="brains", address="127.0.0.1:9443", port=9443)
        create_federation(self.folder, settings, ["127.0.0.1"])
        self._service = enrolment.EnrolmentService(self.folder, lambda method, how: None)
        self.messages: list[bytes] = []
        self.lie: Callable[[str, object], object] = lambda method, reply: reply
        self.down = False
        self.sites: dict[str, Site] = {}

    def add(self, name: str, *, shared: FederationKey | None = None, known: bool = True) -> Site:
        """A site that has joined; ``known``: it and all others have confirmed each other."""
        invite = make_invite(self.folder, name, "0" * 64)
        folder, data = SiteFolder(self.root / name), self.root / "images"
        data.mkdir(exist_ok=True)
        joined = join(invite, folder, data, shared)
        answer = enrol(self.folder, str(invite.token), read_request(joined.request))
        write_atomically(folder.tls_certificate, answer.certificate)
        site = Site(folder)
        for other in self.sites.values() if known else ():
            other.confirm(site)
            site.confirm(other)
        self.sites[name] = site
        return site

    def revoke(self, name: str) -> Site:
        revoke(self.folder, name)
        return self.sites.pop(name)

    def settle(self, *names: str, turns: int = 4) -> None:
        """Several looks of each site at the desk, in order."""
        for _ in range(turns):
            for name in names or tuple(self.sites):
                self.sites[name].hear()

    def ask(self, method: str, site: SiteFolder, body):
        if self.down:
            raise UnreachableError("nobody answers")
        settings = site.settings()
        signer = TlsSigner(read_tls_key(site.tls_key))
        request = sign_request(
            settings.federation, method, settings.site, body.SerializeToString(), signer
        )
        self.messages.append(request.SerializeToString())
        reply = self.lie(method, getattr(self._service, method)(request, None))
        self.messages.append(reply.SerializeToString())
        return reply


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A federation without sites, whose desk is asked by call instead of by socket."""

    @contextmanager
    def plainly(*_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(enrolment, "answering", plainly)
    desk = Desk(tmp_path)
    monkeypatch.setattr(
        carry, "list_peers", lambda site: desk.ask("ListPeers", site, pb.ListPeersBody())
    )
    monkeypatch.setattr(
        carry,
        "get_sealed_key",
        lambda site, generation: desk.ask(
            "GetSealedKey", site, pb.GetSealedKeyBody(generation=generation)
        ),
    )
    monkeypatch.setattr(
        carry,
        "put_sealed_keys",
        lambda site, keys: desk.ask("PutSealedKeys", site, pb.PutSealedKeysBody(keys=keys)),
    )
    yield desk
    for site in desk.sites.values():
        site.stop()
