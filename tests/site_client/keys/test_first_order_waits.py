"""A run's first order and the federation key cross on the way: the order waits, not for ever."""

from __future__ import annotations

import pytest

from common.crypto.keyed import FederationKey
from common.plan import parse_plan
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, RosterEntry, encode_order
from site_client.spool import Spool
from site_client.worker.patience import LONGEST_S
from tests.conftest import loosen

PLAN = {
    "name": "no-op",
    "kind": "no-op",
    "seed": 3,
    "task": {"landmarks": ["AC", "PC"], "roi": 9},
    "network": {"width": 4},
    "experience": {"rows": 3, "columns": 64},
}


@pytest.fixture
def pair(desk):
    """The first site, which has the key, and a second that the desk has nothing for yet."""
    north = desk.add("north")
    for number in range(2):
        (desk.root / "images" / f"case{number}.nii.gz").touch()
        (desk.root / "images" / f"case{number}.mrk.json").touch()
    desk.settle("north")
    return north, desk.add("south")


def put_order(
    desk, site, *, run: str = "run-1", deadline_s: int = 600, round_: int = 0, phase: str = "begin"
) -> str:
    """An order to a site whose people have approved, and confirmed whom they must."""
    loosen(site.folder)
    header = OrderHeader(
        run=run,
        round=round_,
        phase=phase,
        plan=parse_plan(PLAN).canonical().decode(),
        deadline_s=deadline_s,
        roster=(RosterEntry(site=site.name, ledger_key=site.fingerprint),),
    )
    body = encode_order(header)
    signature = desk.folder.witness_key().sign(SIGNATURE_CONTEXT + body)
    spool = Spool(site.folder.spool)
    return spool.put_order(parcel.wrap({"order": body, "signature": signature}))


def report(site, digest: str):
    data = Spool(site.folder.spool).read_reply(digest)
    return None if data is None else decode(parcel.unwrap(data)["RoundReport.envelope"]).record


def pass_time(site, seconds: float) -> None:
    patience = site.worker._patience
    before = patience._clock
    patience._clock = lambda: before() + seconds


def test_the_first_order_waits_for_the_key_and_is_answered_with_it(desk, pair):
    north, south = pair
    digest = put_order(desk, south)
    for _ in range(3):
        south.hear()
        assert report(south, digest) is None
    north.hear()  # seals to the newcomer
    north.hear()  # its courier carries that
    south.hear()
    assert report(south, digest).code is ReplyCode.OK
    assert south.key_id() == north.key_id()
    assert not south.refusals()


def test_before_the_courier_was_ever_answered_the_order_waits_too(desk, pair):
    _, south = pair
    desk.down = True
    digest = put_order(desk, south)
    assert not south.worker.turn()
    assert report(south, digest) is None


@pytest.mark.parametrize(("deadline_s", "most"), [(600, LONGEST_S), (10, 5.0)])
def test_a_key_that_does_not_come_is_said_by_its_own_number_in_good_time(
    desk, pair, deadline_s, most
):
    _, south = pair
    digest = put_order(desk, south, deadline_s=deadline_s)
    south.hear()
    pass_time(south, most - 1)
    assert not south.worker.turn()
    pass_time(south, 1.1)
    assert south.worker.turn()
    assert report(south, digest).code is ReplyCode.NO_FEDERATION_KEY
    assert [refusal.code for refusal in south.refusals()] == [ReplyCode.NO_FEDERATION_KEY]


def test_a_site_that_shares_with_nobody_does_not_let_the_others_wait(desk, pair):
    _, south = pair
    south.write_policy('share = "never"')
    digest = put_order(desk, south)
    south.hear()
    assert report(south, digest).code is ReplyCode.NO_FEDERATION_KEY


def test_a_key_brought_by_hand_is_used_at_once(desk):
    south = desk.add("south", shared=FederationKey.generate())
    for number in range(2):
        (desk.root / "images" / f"case{number}.nii.gz").touch()
        (desk.root / "images" / f"case{number}.mrk.json").touch()
    digest = put_order(desk, south)
    south.worker.turn()
    assert report(south, digest).code is ReplyCode.OK


def test_a_box_that_does_not_hold_ends_the_waiting(desk, pair):
    north, south = pair
    north.hear()
    north.hear()

    def bend(method, reply):
        if method == "GetSealedKey" and reply.HasField("key"):
            reply.key.ciphertext = bytes(len(reply.key.ciphertext))
        return reply

    desk.lie = bend
    digest = put_order(desk, south)
    south.hear()
    assert report(south, digest).code is ReplyCode.NO_FEDERATION_KEY


def test_after_a_revocation_the_next_run_waits_for_the_new_key(desk, pair):
    north, south = pair
    desk.add("east")
    desk.settle()
    old = south.key_id()
    desk.revoke("east").stop()
    south.carrier.turn()
    digest = put_order(desk, south)
    assert not south.worker.turn()
    desk.settle()
    assert report(south, digest).code is ReplyCode.OK
    assert south.key_id() == north.key_id() != old


def test_an_order_of_another_run_need_not_wait_behind(desk, pair):
    _, south = pair
    held = put_order(desk, south)
    later = put_order(desk, south, run="run-2", round_=1, phase="train")
    south.hear()
    assert report(south, held) is None
    assert report(south, later).code is ReplyCode.NO_FEDERATION_KEY
