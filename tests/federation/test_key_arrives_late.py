"""A run starts while the federation key is on its way: it waits, says so, and completes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from aggregator.admin.enrol import revoke
from aggregator.desk import enrolment
from aggregator.report.html import write_report
from aggregator.report.live import plain_line, status_json, status_table
from aggregator.report.state import fold
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import RoundFinished, RoundStarted, SiteReplied, SitesAwaited
from aggregator.rounds.store import RunOptions, RunStore
from common.crypto.certificates import read_tls_key
from common.crypto.identity import read_signing_key
from common.desk import desk_pb2 as pb
from common.desk.signing import TlsSigner, sign_request
from common.plan import parse_plan
from common.wire.codes import ReplyCode
from site_client.decisions.making import Decision, decide
from site_client.keys import carry
from site_client.keys.carry import KeyCarrier
from site_client.keys.ring import KeyRing
from site_client.site import SiteFolder
from site_client.worker.loop import Worker
from tests.conftest import loosen

SITES = ("site-a", "site-b", "site-c")


def confirm(site: SiteFolder, other: SiteFolder) -> None:
    """What a person of ``site`` types after a telephone call."""
    key = read_signing_key(other.ledger_key).public.fingerprint
    name = other.settings().site
    decide(site, [Decision.made(event="CONFIRM", person="IT", peer=name, peer_key=key)])


class Asking:
    """Sites that join without a key, and a desk that they can ask."""

    def __init__(self, federation, time) -> None:
        self.federation, self.time = federation, time
        self.carriers: dict[str, KeyCarrier] = {}

    def join(self, *names: str) -> None:
        """They are admitted and have asked nothing yet."""
        for name in names:
            site = self.federation.add_site(name)
            site.federation_key.unlink()
            for other in self.carriers:
                confirm(site, self.federation.sites[other])
                confirm(self.federation.sites[other], site)
            self.carriers[name] = KeyCarrier(site)

    def join_late(self) -> None:
        """Two sites have the key; the third has just joined and asked for it, once."""
        self.join("site-a", "site-b")
        self.hear("site-a", "site-b")
        self.join("site-c")
        self.hear("site-c", turns=1)

    def hear(self, *names: str, turns: int = 4) -> None:
        """The couriers of these ask and carry; their workers see to what came."""
        for _ in range(turns):
            for name in names:
                self.carriers[name].turn()
                with Worker(self.federation.sites[name], threading.Event()) as worker:
                    worker.turn()

    def conduct(self, plan, *, wait_s: float = 60.0, transport=None):
        """Conduct a run of all sites; returns its verdict and its events."""
        federation = self.federation
        options = RunOptions(min_sites=len(SITES), wait_s=wait_s)
        store = RunStore.create(federation.folder.runs / "run-1", plan, options)
        conductor = Conductor(
            federation.folder,
            store,
            transport or federation.transport(),
            federation.turn(),
            clock=lambda: self.time.now,
            sleep=self.time.sleep,
        )
        return conductor.run(), federation.events(store)


@pytest.fixture
def asking(federation, time, monkeypatch) -> Asking:
    @contextmanager
    def plainly(*_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(enrolment, "answering", plainly)
    service = enrolment.EnrolmentService(federation.folder, lambda method, how: None)

    def ask(method, site, body):
        settings, signer = site.settings(), TlsSigner(read_tls_key(site.tls_key))
        data = body.SerializeToString()
        request = sign_request(settings.federation, method, settings.site, data, signer)
        return getattr(service, method)(request, None)

    for name, method, body in (
        ("list_peers", "ListPeers", lambda: pb.ListPeersBody()),
        ("get_sealed_key", "GetSealedKey", lambda number: pb.GetSealedKeyBody(generation=number)),
        ("put_sealed_keys", "PutSealedKeys", lambda keys: pb.PutSealedKeysBody(keys=keys)),
    ):
        monkeypatch.setattr(carry, name, lambda site, *a, m=method, b=body: ask(m, site, b(*a)))
    return Asking(federation, time)


def awaited(events) -> list[tuple[str, tuple[str, ...]]]:
    return [(e.what, e.sites) for e in events if isinstance(e, SitesAwaited)]


def test_a_run_waits_for_the_site_to_which_the_key_is_on_its_way(asking, no_op_plan):
    asking.join_late()
    asking.time.at = [(5.0, lambda: asking.hear("site-a")), (8.0, lambda: asking.hear("site-c"))]
    verdict, events = asking.conduct(no_op_plan)
    assert awaited(events) == [("federation_key", ("site-c",))]
    assert (verdict.verdict, verdict.reason) == ("COMPLETED", "")
    assert {e.code for e in events if isinstance(e, SiteReplied)} == {ReplyCode.OK}
    assert asking.time.now >= 8.0, "that it lies at the desk is not enough"
    assert {KeyRing(site).newest().generation for site in asking.federation.sites.values()} == {1}


def test_a_run_waits_for_the_first_site_to_make_the_key(asking, no_op_plan):
    asking.join(*SITES)
    for name in SITES:
        asking.carriers[name].turn()  # asked, and nothing is there: their workers start late
    asking.time.at = [(4.0, lambda: asking.hear(*SITES))]
    verdict, events = asking.conduct(no_op_plan)
    assert awaited(events) == [("federation_key", SITES)]
    assert verdict.verdict == "COMPLETED"


def test_when_time_is_up_the_run_goes_on_without_who_lacks_the_key(asking, no_op_plan):
    asking.join_late()
    verdict, events = asking.conduct(no_op_plan, wait_s=10.0)
    assert awaited(events) == [("federation_key", ("site-c",))]
    assert 10.0 <= asking.time.now < 15.0
    assert verdict.verdict == "DEGRADED"
    assert "site-c" in verdict.reason
    last = [e for e in events if isinstance(e, RoundFinished)][-1]
    assert last.sites == ("site-a", "site-b")


def test_sites_to_be_online_and_then_the_key_share_one_time(asking, no_op_plan):
    asking.join_late()
    transport = asking.federation.transport()
    transport.down = {102}
    asking.time.at = [(6.0, transport.down.clear)]
    verdict, events = asking.conduct(no_op_plan, wait_s=10.0, transport=transport)
    assert awaited(events) == [("online", ("site-c",)), ("federation_key", ("site-c",))]
    assert asking.time.now < 15.0
    assert verdict.verdict == "DEGRADED"


def test_after_a_revocation_a_run_waits_for_the_new_key(asking, no_op_plan):
    asking.join(*SITES)
    asking.hear(*SITES)
    gone = asking.federation.add_site("site-d")
    revoke(asking.federation.folder, gone.root.name)
    asking.time.at = [(3.0, lambda: asking.hear(*SITES))]
    verdict, events = asking.conduct(no_op_plan)
    assert awaited(events)[0] == ("federation_key", SITES)
    assert verdict.verdict == "COMPLETED"
    assert {KeyRing(asking.federation.sites[n]).newest().generation for n in SITES} == {2}


def test_keys_that_people_carry_are_not_waited_for(three, no_op_plan):
    store = three.create_run(no_op_plan, min_sites=3)
    options = RunOptions(min_sites=3, wait_s=60.0)
    (store.folder / "options.json").write_text(options.model_dump_json())
    slept: list[float] = []
    conductor = Conductor(three.folder, store, three.transport(), three.turn(), sleep=slept.append)
    assert conductor.run().verdict == "COMPLETED"
    assert slept == []
    assert awaited(three.events(store)) == []


def test_a_plan_of_public_sketches_waits_for_the_key_too_for_sums_are_proved_under_it(
    asking, no_op_plan
):
    asking.join(*SITES)
    for site in asking.federation.sites.values():
        loosen(site, least_tier="0")
    asking.hear(*SITES, turns=1)
    asking.time.at = [(5.0, lambda: asking.hear(*SITES))]
    public = no_op_plan.model_dump(mode="json") | {"limits": {"privacy_tier": 0}}
    verdict, events = asking.conduct(parse_plan(public))
    assert awaited(events) == [("federation_key", SITES)]
    assert (verdict.verdict, verdict.reason) == ("COMPLETED", "")


def test_watch_status_and_report_say_for_whom_a_run_waits(asking, no_op_plan, tmp_path):
    asking.join_late()
    asking.time.at = [(5.0, lambda: asking.hear("site-a", "site-c"))]
    _, events = asking.conduct(no_op_plan)
    at = next(n for n, e in enumerate(events) if isinstance(e, SitesAwaited))
    assert plain_line(events[at]).endswith("sites_awaited what=federation_key sites=site-c")
    state = fold(events[: at + 1])
    assert state.waiting.says == "waiting for the federation key: site-c"
    assert status_json(state)["waiting_for"] == {"what": "federation_key", "sites": ["site-c"]}
    shown = Console(width=120, file=io.StringIO())
    shown.print(status_table(state))
    assert "waiting for the federation key: site-c" in shown.file.getvalue()
    write_report(tmp_path / "report.html", state)
    page = (tmp_path / "report.html").read_text()
    assert "It is waiting for the federation key: site-c." in page
    assert "on its way" in state.site("site-c").detail
    assert state.site("site-a").detail == ""
    first = next(n for n, e in enumerate(events) if isinstance(e, RoundStarted))
    assert status_json(fold(events[: first + 1]))["waiting_for"] is None
