"""A coordinator at another machine: who is let in, and that they see what the owner sees."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import click
import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from aggregator.admin.credentials import (
    issue_credential,
    make_signing_request,
    read_credential,
    withdraw_credential,
    write_credential,
)
from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder
from aggregator.cli import cli
from aggregator.desk import coordinator, remote
from aggregator.desk.remote import RemoteDesk
from aggregator.desk.server import DeskServer
from aggregator.rounds.events import (
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
)
from aggregator.rounds.store import RunOptions, RunStore
from common.crypto.files import read_secret
from common.desk import desk_pb2 as pb
from common.desk.channel import DeskAddress, connected, told
from common.desk.desk_pb2_grpc import CoordinatorStub
from common.enrolment import read_invite
from common.errors import (
    CairnError,
    InputDataError,
    RefusedError,
    UnreachableError,
    UsageError,
    VerificationError,
)
from common.plan import parse_plan
from common.wire.codes import ReplyCode

PLAN = 'name = "p"\nseed = 1\nkind = "no-op"\n[task]\nlandmarks = ["AC"]\n'
START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def replied(site: str, seconds: float) -> SiteReplied:
    return SiteReplied(
        ts=at(seconds), round=1, site=site, code=ReplyCode.OK, accepted=True, bytes=730_000
    )


NAME = "20260504-090000-p"


def a_run(folder: FederationFolder, name: str = NAME, *, finished: bool = True) -> RunStore:
    """A run of three sites: one sent, one was late, one was rejected."""
    plan = parse_plan({"name": "p", "seed": 1, "kind": "no-op", "task": {"landmarks": ["AC"]}})
    store = RunStore.create(folder.runs / name, plan, RunOptions(min_sites=3, wait_s=1.0))
    sites = ("east", "north", "south")
    events = [
        RunStarted(
            ts=at(0),
            run=name,
            federation="brains",
            plan_name="p",
            plan_fingerprint=plan.fingerprint,
            kind="no-op",
            rounds=2,
            quorum=1,
            sites=sites,
        ),
        RoundStarted(ts=at(1), round=1, phase="train", order_bytes=1000, sites=sites),
        replied("north", 5),
        SiteRejected(ts=at(6), round=1, site="south", reason="L2 norm"),
        SiteLate(ts=at(9), round=1, site="east"),
        RoundFinished(
            ts=at(9), round=1, phase="train", sites=("north",), model_sha256="a" * 64, seconds=8.0
        ),
    ]
    for event in events + ([the_end()] if finished else []):
        store.record(event)
    return store


def the_end() -> RunFinished:
    return RunFinished(
        ts=at(10), verdict="DEGRADED", reason="late", rounds=1, seconds=10.0, exit_code=0
    )


def cairn(*words) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


# Who is let in.


def stub_call(served, certificate: bytes, key: bytes):
    """ListSites with any certificate, as any client could make it."""
    peer = DeskAddress(
        served.settings.public_desk,
        (served.folder.pki / "ca.crt").read_bytes(),
        certificate,
        key,
    )
    with connected(peer) as channel:
        return CoordinatorStub(channel).ListSites(pb.ListSitesRequest(), timeout=10)


def test_the_first_coordinator_is_let_in_with_the_file_that_init_wrote(served):
    assert served.remote.sites() == []
    read_secret(served.folder.root / "coordinator.toml")  # refuses any mode but 600


def test_nobody_is_let_in_without_a_certificate(served):
    with pytest.raises(UnreachableError):
        stub_call(served, b"", b"")


def test_a_sites_certificate_does_not_coordinate(served):
    site = served.enrolled()
    with pytest.raises(RefusedError, match="for coordinators") as caught:
        stub_call(served, site.tls_certificate.read_bytes(), site.tls_key.read_bytes())
    assert caught.value.got == "a site's"


def test_a_certificate_of_another_authority_is_refused_in_the_handshake(served, tmp_path):
    other = FederationFolder(tmp_path / "other")
    create_federation(other, served.settings, ["127.0.0.1"])
    credential = read_credential(other.root / "coordinator.toml")
    with pytest.raises(UnreachableError):
        stub_call(served, credential.certificate.encode(), credential.private_key.encode())


def test_a_withdrawn_credential_is_refused_from_the_next_request_on(served):
    desk = served.remote
    desk.sites()
    withdraw_credential(served.folder, "coordinator")
    with pytest.raises(RefusedError, match="withdrawn"):
        desk.sites()


def test_a_second_credential_for_a_name_ends_the_first(served, tmp_path):
    first = served.remote
    write_credential(tmp_path / "new.toml", issue_credential(served.folder, "coordinator"))
    assert RemoteDesk.from_file(tmp_path / "new.toml").sites() == []
    with pytest.raises(RefusedError, match="replaced"):
        first.sites()


def test_a_credential_from_a_signing_request_holds_no_private_key(served, tmp_path):
    cairn("signing-request", "alice", "-o", tmp_path / "alice.csr")
    words = ("coordinator", "alice", "--csr", tmp_path / "alice.csr", "--dir", served.folder.root)
    cairn(*words, "-o", tmp_path / "alice.toml")
    assert "PRIVATE" not in (tmp_path / "alice.toml").read_text()
    assert RemoteDesk.from_file(tmp_path / "alice.toml").sites() == []
    (tmp_path / "alice.key").unlink()
    with pytest.raises(InputDataError, match="key file"):
        RemoteDesk.from_file(tmp_path / "alice.toml")


def test_a_signing_request_never_overwrites_a_key(tmp_path):
    make_signing_request(tmp_path / "alice.csr", "alice")
    with pytest.raises(InputDataError, match="overwritten"):
        make_signing_request(tmp_path / "alice.csr", "alice")


def test_an_expired_credential_is_said_before_anybody_is_asked(served, monkeypatch):
    credential = read_credential(served.folder.root / "coordinator.toml")

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=400)

    monkeypatch.setattr(remote, "datetime", Later)
    with pytest.raises(VerificationError, match="expired"):
        RemoteDesk(credential, served.folder.root / "coordinator.toml")


def test_a_desk_that_does_not_listen_is_unreachable_at_once(new_federation):
    start = time.monotonic()
    with pytest.raises(UnreachableError):
        RemoteDesk.from_file(new_federation.root / "coordinator.toml").sites()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("listener", ["enrolment", "coordinators"])
def test_tls_1_2_is_spoken_with_nobody(served, listener):
    context = ssl.create_default_context(cafile=served.folder.pki / "ca.crt")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(served.settings.listeners()[listener], timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass


def test_a_port_that_is_taken_is_named_and_nothing_stays_open(served):
    again = DeskServer(served.folder)
    with pytest.raises(InputDataError, match="cannot listen") as caught:
        again.start()
    assert caught.value.field == "{}:{}".format(*served.settings.listeners()["enrolment"])
    assert served.remote.sites() == []


# What they see.


def test_status_in_json_is_the_same_here_and_there(served):
    a_run(served.folder)
    here = cairn("status", "--json", "--dir", served.folder.root)
    there = cairn("--desk", served.folder.root / "coordinator.toml", "status", "--json")
    assert here == there
    state = json.loads(there)
    assert state["verdict"] == "DEGRADED"
    assert {name: site["state"] for name, site in state["sites"].items()} == {
        "east": "late",
        "north": "sent",
        "south": "rejected",
    }
    with served.remote._stub() as stub:
        reply = stub.Status(pb.StatusRequest(), timeout=10)
    assert json.loads(reply.status) == state


@pytest.mark.parametrize("command", ["watch", "runs", "sites"])
def test_every_view_is_the_same_here_and_there(served, command):
    served.enrolled()
    served.invite("east")
    a_run(served.folder)
    here = cairn(command, "--dir", served.folder.root)
    assert here == cairn(command, "--desk", served.folder.root / "coordinator.toml")
    assert here.strip()


def test_a_report_is_fetched_whole(served, tmp_path):
    a_run(served.folder)
    cairn("report", "-o", tmp_path / "here.html", "--dir", served.folder.root)
    credential = served.folder.root / "coordinator.toml"
    cairn("report", "-o", tmp_path / "there.html", "--desk", credential)
    page = (tmp_path / "there.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "20260504-090000-p" in page


def test_each_event_comes_as_it_is_written_with_what_they_amount_to(served):
    store = a_run(served.folder, finished=False)
    seen: list[pb.RunUpdate] = []
    stop = threading.Event()
    request = pb.WatchRoundRequest(run=store.name, follow=True)

    def follow() -> None:
        seen.extend(served.remote.updates(request, stop))

    thread = threading.Thread(target=follow)
    thread.start()
    until = time.monotonic() + 20
    time.sleep(1.0)
    store.record(the_end())
    thread.join(until - time.monotonic())
    assert not thread.is_alive(), "a watch ends with its run"
    assert b"".join(update.event + b"\n" for update in seen) == store.journal.read_bytes()
    assert [update.position for update in seen][-1] == store.journal.stat().st_size
    last = seen[-2].progress
    assert (last.round, last.rounds, last.rounds_finished) == (1, 2, 1)
    assert {s.site: (s.state, s.bytes_out) for s in last.sites} == {
        "east": ("late", 0),
        "north": ("sent", 730_000),
        "south": ("rejected", 0),
    }
    assert {s.detail for s in last.sites if s.site == "south"} == {"L2 norm"}
    assert last.HasField("expected_end_unix_ms")
    assert seen[-1].progress.verdict == "DEGRADED"


def test_a_watch_begins_where_it_is_asked_to(served):
    store = a_run(served.folder)
    whole = list(served.remote.updates(pb.WatchRoundRequest(), threading.Event()))
    middle = whole[3].position
    rest = served.remote.updates(pb.WatchRoundRequest(since=middle), threading.Event())
    assert [u.position for u in rest] == [u.position for u in whole[4:]]
    assert store.name == whole[0].run


def test_too_many_watchers_are_refused_and_a_place_is_free_again_afterwards(
    new_federation, monkeypatch
):
    monkeypatch.setattr(coordinator, "MOST_WATCHERS", 1)
    server = DeskServer(new_federation)
    server.start()
    try:
        desk = RemoteDesk.from_file(new_federation.root / "coordinator.toml")
        a_run(new_federation, finished=False)
        follow, stop = pb.WatchRoundRequest(follow=True), threading.Event()
        watching = desk.updates(follow, stop)
        next(watching)
        with pytest.raises(RefusedError, match="too many"):
            next(desk.updates(pb.WatchRoundRequest(), threading.Event()))
        watching.close()
        stop.set()
        until = time.monotonic() + 20
        while True:
            try:
                next(desk.updates(pb.WatchRoundRequest(), threading.Event()))
                break
            except RefusedError:
                assert time.monotonic() < until, "the place stays taken"
                time.sleep(0.1)
    finally:
        server.stop()


def test_a_run_that_is_not_there_is_said_and_a_path_is_not_a_run(served):
    for name, error in (("nothing", InputDataError), ("../../etc", RefusedError)):
        with pytest.raises(error), served.remote.journal(name):
            pass
    with pytest.raises(InputDataError, match="no run was started"), served.remote.journal(""):
        pass


# What they do.


def test_a_site_is_invited_admitted_and_revoked_from_afar(served, tmp_path):
    credential = served.folder.root / "coordinator.toml"
    desk = served.remote
    cairn("invite", "north", "--wait", "-o", tmp_path / "i.toml", "--desk", credential)
    assert (tmp_path / "i.toml").stat().st_mode & 0o077 == 0
    assert [line.state for line in desk.sites()] == ["invited"]
    invite = read_invite(tmp_path / "i.toml")
    assert served.send(invite, served.site(invite)).state == "waiting"
    assert [line.state for line in desk.sites()] == ["waiting"]
    cairn("admit", "north", "--desk", credential)
    (line,) = desk.sites()
    assert (line.state, line.certificate_days) == ("admitted", 89)
    assert (
        "the aggregator does not run"
        in cairn("revoke", "north", "--yes", "--desk", credential).lower()
    )
    assert [line.state for line in desk.sites()] == ["revoked"]


def test_an_invite_that_went_astray_is_withdrawn_and_the_name_stays_free(served, tmp_path):
    credential = served.folder.root / "coordinator.toml"
    astray, waiting = served.invite(), served.invite(auto_admit=False)
    served.send(waiting, served.site(waiting, "early"))
    assert "Withdrew every invite" in cairn("revoke", "north", "--yes", "--desk", credential)
    with pytest.raises(RefusedError, match="not known here"):
        served.send(astray, served.site(astray, "thief"))
    assert served.remote.sites() == []
    again = served.invite()
    assert served.send(again, served.site(again)).state == "admitted"
    with pytest.raises(InputDataError, match="no such site"):
        cairn("revoke", "nobody", "--yes", "--desk", credential)


def test_a_request_that_came_by_mail_is_admitted_from_afar(served):
    site = served.site(served.invite(by_mail=True))
    done = served.remote.admit(served.request(site))
    assert done.site == "north"
    assert list(served.folder.admitted()) == ["north"]


def test_a_plan_is_validated_before_anything_starts(served):
    desk = served.remote
    peer_call = pb.StartRoundRequest(plan=PLAN.encode(), check_only=True)
    with desk._stub() as stub:
        reply = stub.StartRound(peer_call, timeout=10)
    facts = {fact.name: fact.value for fact in reply.facts}
    assert facts["quorum"].endswith("of 0 admitted sites")
    assert "privacy tier 1" in facts["sketch"]
    assert "MB a round" in facts["a site sends"]
    assert reply.run == ""
    with desk._stub() as stub, pytest.raises(InputDataError, match="quorom"), told(desk._peer):
        stub.StartRound(pb.StartRoundRequest(plan=PLAN.encode() + b"quorom = 1"), timeout=10)
    assert served.folder.run_names() == []


def test_a_plan_beyond_the_sites_is_refused_from_afar_with_the_same_words(served, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    words = ("round", "start", tmp_path / "plan.toml", "--json")
    with pytest.raises(RefusedError) as here:
        cairn(*words, "--dir", served.folder.root)
    with pytest.raises(RefusedError) as there:
        cairn(*words, "--desk", served.folder.root / "coordinator.toml")
    assert here.value.as_dict() == there.value.as_dict()


def test_an_attachment_cannot_name_another_file(served):
    desk = served.remote
    for name in ("plan.json", "../codec.json", "/tmp/codec.json"):
        request = pb.StartRoundRequest(plan=PLAN.encode(), attachments={name: b"{}"})
        with pytest.raises(RefusedError, match="document"), desk._stub() as stub:
            stub.StartRound(request, timeout=10)


def test_an_invite_from_afar_is_bounded(served):
    with pytest.raises(RefusedError, match="days"):
        served.remote.invite("north", days=4000, auto_admit=True, by_mail=False)
    with pytest.raises(UsageError):
        served.remote.invite("north", days=7, auto_admit=True, by_mail=True)


def test_a_command_takes_a_folder_or_a_desk(served):
    result = CliRunner().invoke(
        cli,
        ["status", "--dir", str(served.folder.root), "--desk", "x.toml"],
        standalone_mode=False,
    )
    assert isinstance(result.exception, click.UsageError)


# Health and metrics.


@pytest.mark.parametrize("service", ["", "cairn.desk.v1.Enrolment", "cairn.desk.v1.Coordinator"])
def test_both_listeners_say_that_they_serve(served, service):
    authority = (served.folder.pki / "ca.crt").read_bytes()
    credential = read_credential(served.folder.root / "coordinator.toml")
    mine = (credential.certificate.encode(), credential.private_key.encode())
    for peer in (
        DeskAddress(served.settings.public_enrolment, authority),
        DeskAddress(served.settings.public_desk, authority, *mine),
    ):
        with connected(peer) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


def scrape(served) -> dict[tuple[str, tuple[str, ...]], float]:
    host, port = served.settings.listeners()["metrics"]
    assert host == "127.0.0.1"
    with urlopen(f"http://{host}:{port}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


def test_the_metrics_page_counts_sites_runs_days_and_requests(served):
    served.enrolled()
    served.invite("east")
    a_run(served.folder)
    served.remote.sites()
    with pytest.raises(InputDataError), served.remote.journal("nothing"):
        pass
    found = scrape(served)
    assert found["cairn_sites", ("admitted",)] == 1
    assert found["cairn_sites", ("invited",)] == 1
    assert found["cairn_site_certificate_days_left", ("north",)] == 89
    assert found["cairn_certificate_days_left", ("server",)] > 800
    assert found["cairn_runs", ()] == 1
    run = "20260504-090000-p"
    assert found["cairn_run_rounds", (run,)] == 2
    assert found["cairn_run_verdict", (run, "DEGRADED")] == 1
    assert found["cairn_run_verdict", (run, "COMPLETED")] == 0
    assert found["cairn_run_site_state", ("south", "rejected")] == 1
    assert found["cairn_run_site_bytes_out", ("north",)] == 730_000
    assert found["cairn_desk_requests_total", ("ListSites", "ok")] == 1
    assert found["cairn_desk_requests_total", ("Enrol", "ok")] == 1
    assert found["cairn_desk_requests_total", ("Status", "InputDataError")] == 1


def test_a_damaged_journal_does_not_hide_the_other_metrics(served):
    store = a_run(served.folder)
    store.journal.write_text("not an event\n")
    found = scrape(served)
    assert found["cairn_runs", ()] == 1
    assert not any(name.startswith("cairn_run_") for name, _ in found)


def test_a_stopped_desk_ends_its_watches(new_federation):
    server = DeskServer(new_federation)
    server.start()
    desk = RemoteDesk.from_file(new_federation.root / "coordinator.toml")
    store = a_run(new_federation, finished=False)
    ended = threading.Event()
    request = pb.WatchRoundRequest(run=store.name, follow=True)

    def follow() -> None:
        with contextlib.suppress(grpc.RpcError, CairnError):
            list(desk.updates(request, threading.Event()))
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    time.sleep(1)
    assert not ended.is_set()
    server.stop()
    assert ended.wait(10)
