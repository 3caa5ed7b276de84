"""A stranger without an invite has a little of the desk's time, and none of its memory."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite
from aggregator.desk import enrolment
from aggregator.desk.limits import BY_ADDRESS, BY_TOKEN, MOST_KEPT, OF_ALL, Knocking, address_of
from common.desk import desk_pb2 as pb
from common.errors import RefusedError
from tests.fuzz import corpus


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def knocking(clock) -> Knocking:
    return Knocking(clock)


def let_in(knocking, calls) -> int:
    """How many of these calls are worked on."""
    passed = 0
    for address, token in calls:
        try:
            knocking.require(address, token)
        except RefusedError:
            continue
        passed += 1
    return passed


def test_one_address_knocks_so_often_and_another_is_heard_all_the_same(knocking, clock):
    many = (("203.0.113.9", f"token-{number}") for number in range(1000))
    assert let_in(knocking, many) == BY_ADDRESS.at_once
    assert let_in(knocking, [("203.0.113.10", "another")]) == 1
    clock.now += 3 * BY_ADDRESS.every_s
    assert let_in(knocking, (("203.0.113.9", f"later-{n}") for n in range(9))) == 3


def test_one_token_is_tried_so_often_from_wherever(knocking):
    many = ((f"203.0.113.{number}", "the same") for number in range(200))
    assert let_in(knocking, many) == BY_TOKEN.at_once


def test_a_crowd_of_addresses_has_a_limit_too_and_no_memory_of_ours(knocking):
    crowd = ((f"2001:db8:{n:x}::", f"t{n}") for n in range(3 * MOST_KEPT))
    assert let_in(knocking, crowd) == OF_ALL.at_once
    assert len(knocking._addresses) <= MOST_KEPT
    assert len(knocking._tokens) <= MOST_KEPT


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0, 50)), max_size=300
    )
)
def test_never_more_than_the_rate_however_the_calls_are_spread(calls):
    clock, passed = Clock(), dict[str, int]()
    knocking, began = Knocking(clock), clock.now
    for address, token, wait in calls:
        clock.now += wait
        try:
            knocking.require(address, token)
        except RefusedError:
            continue
        passed[address] = passed.get(address, 0) + 1
    allowed = BY_ADDRESS.at_once + (clock.now - began) / BY_ADDRESS.every_s
    assert all(count <= allowed + 1e-6 for count in passed.values())


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("ipv4:203.0.113.9:51123", {}, "203.0.113.9"),
        ("ipv4:203.0.113.9:51123", {"x-real-ip": "198.51.100.1"}, "203.0.113.9"),
        ("ipv4:127.0.0.1:51123", {"x-real-ip": "198.51.100.1"}, "198.51.100.1"),
        ("ipv4:127.0.0.1:51123", {"x-real-ip": "a name"}, "127.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:443", {}, "2001:db8::"),
        ("ipv6:[2001:db8::2]:443", {}, "2001:db8::"),
        ("ipv6:%5B::ffff:203.0.113.9%5D:443", {}, "203.0.113.9"),
        ("unix:/tmp/x", {}, ""),
        ("", {}, ""),
    ],
)
def test_who_knocks_is_the_peer_or_whom_a_proxy_of_this_machine_names(peer, said, address):
    assert address_of(peer, said) == address


class Context:
    """A call's context as gRPC gives one, from one address."""

    def peer(self) -> str:
        return "ipv4:203.0.113.9:51123"

    def invocation_metadata(self):
        return (("x-real-ip", "127.0.0.1"), ("odd-bin", b"\xff"))

    def set_trailing_metadata(self, metadata) -> None:
        self.told = metadata

    def abort(self, status, text):
        raise ConnectionAbortedError(status, text)


def test_the_desk_looks_at_nothing_of_a_stranger_who_knocks_too_often(tmp_path, monkeypatch):
    folder = FederationFolder(tmp_path / "federation")
    about = FederationSettings(name="fuzz", address="127.0.0.1:8443", port=8443)
    create_federation(folder, about, ["127.0.0.1"])
    make_invite(folder, corpus.NAME, "ab" * 32)
    looked, honest = [], enrolment.parse_request

    def noted(data):
        looked.append(data)
        return honest(data)

    monkeypatch.setattr(enrolment, "parse_request", noted)
    service = enrolment.EnrolmentService(folder, lambda *_: None)
    statuses = set()
    for number in range(200):
        request = pb.EnrolRequest(token=f"{number}", join_request=corpus.request())
        with pytest.raises(ConnectionAbortedError) as refused:
            service.Enrol(request, Context())
        statuses.add(refused.value.args[0])
    assert len(looked) <= BY_ADDRESS.at_once + 10, "and a few that came back meanwhile"
    assert statuses == {grpc.StatusCode.PERMISSION_DENIED}


def test_a_site_that_asks_for_ever_leaves_others_their_turn_and_gets_its_own_back():
    nonces, moment = enrolment.Nonces(), 1_000_000
    for number in range(enrolment.MOST_OF_ONE_SITE):
        nonces.take("busy", number.to_bytes(16, "big"), moment)
    with pytest.raises(RefusedError):
        nonces.take("busy", b"one more".ljust(16), moment)
    nonces.take("quiet", bytes(16), moment)
    later = moment + 3 * enrolment.LARGEST_SKEW_MS + 1
    nonces.take("busy", b"one more".ljust(16), later)
    assert len(nonces._seen) == 1
