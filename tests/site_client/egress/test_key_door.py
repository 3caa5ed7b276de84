"""Sealed keys leave for verified sites that the policy allows, recorded first; or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.exchange import OpeningKey
from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey
from common.crypto.sealing import Label, seal, sign_box
from common.errors import CairnError, RefusedError, VerificationError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.policy import KeySharing, Policy, read_policy
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap
from common.wire.sealed_keys import SealedBox, decode_sealed, encode_sealed
from site_client.egress.keys import KeyContext, KeyDoor, check_keys
from site_client.egress.policy import default_policy_text
from site_client.spool import Spool

KEY = FederationKey(bytes(range(16)))
OURS, SOUTH = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes([1]) * 32)
OPENING = OpeningKey.generate()
FINGERPRINT = SOUTH.public.fingerprint


def policy(tmp: Path, **keys) -> Policy:
    file = tmp / "policy.toml"
    file.write_text(default_policy_text())
    return read_policy(file).model_copy(update={"keys": KeySharing(**keys) if keys else None})


def sealed(signer=OURS, **changes) -> bytes:
    words = {
        "federation": "brains",
        "generation": 2,
        "key_id": KEY.key_id,
        "from_site": "north",
        "for_site": "south",
        "for_ledger_key": FINGERPRINT,
    }
    label = Label(**(words | changes))
    box = seal(KEY, OPENING.public, replace(label, key_id=KEY.key_id))
    return encode_sealed([SealedBox(label, box, sign_box(box, label, signer))])


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> KeyContext:
    return KeyContext(
        federation="brains",
        site="north",
        ledger_key=OURS.public,
        generation=2,
        key_id=KEY.key_id,
        receivers={"south": FINGERPRINT},
        confirmed={},
        policy=policy(tmp_path_factory.mktemp("policy"), share="admitted"),
    )


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(
        tmp_path / "ledger", ledger_origin("north"), OURS, lambda: datetime.now(UTC)
    ) as opened:
        yield opened


def test_what_the_site_signed_for_a_verified_site_may_leave(context):
    assert [box.label.for_site for box in check_keys(sealed(), context).boxes] == ["south"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"federation": "hearts"}, "site"),
        ({"from_site": "west"}, "site"),
        ({"generation": 1}, "key_id"),
        ({"key_id": "f" * 16}, "key_id"),
        ({"for_site": "east"}, "receiver"),
        ({"for_ledger_key": "0" * 64}, "receiver"),
    ],
)
def test_anything_that_is_not_our_key_for_a_verified_site_stays(context, changes, field):
    with pytest.raises(RefusedError) as caught:
        check_keys(sealed(**changes), context)
    assert caught.value.field == field


def test_a_box_that_this_site_did_not_sign_stays(context):
    with pytest.raises(VerificationError):
        check_keys(sealed(SOUTH), context)


@pytest.mark.parametrize(
    "keys",
    [
        {"share": "never"},
        {"share": "listed"},
        {"share": "listed", "peers": {"south": "0" * 64}},
        {"share": "listed", "peers": {"east": FINGERPRINT}},
        {},
    ],
    ids=str,
)
def test_what_the_policy_does_not_allow_stays(context, tmp_path, keys):
    with pytest.raises(RefusedError, match="receiver"):
        check_keys(sealed(), replace(context, policy=policy(tmp_path, **keys)))


def test_a_listed_site_may_be_sealed_to(context, tmp_path):
    listed = policy(tmp_path, share="listed", peers={"south": FINGERPRINT})
    check_keys(sealed(), replace(context, policy=listed))


def test_a_site_that_a_person_here_confirmed_may_be_sealed_to(context, tmp_path):
    listed = replace(context, policy=policy(tmp_path, share="listed"))
    check_keys(sealed(), replace(listed, confirmed={"south": FINGERPRINT}))
    for confirmed in ({"south": "0" * 64}, {"east": FINGERPRINT}):
        with pytest.raises(RefusedError, match="receiver"):
            check_keys(sealed(), replace(listed, confirmed=confirmed))


def test_where_policy_and_people_name_different_keys_nobody_is_that_site(context, tmp_path):
    typed = policy(tmp_path, share="listed", peers={"south": "0" * 64})
    with pytest.raises(RefusedError, match="receiver"):
        check_keys(sealed(), replace(context, policy=typed, confirmed={"south": FINGERPRINT}))


def test_with_share_never_a_confirmed_site_is_not_sealed_to_either(context, tmp_path):
    for keys in ({"share": "never"}, {}):
        mute = replace(context, policy=policy(tmp_path, **keys), confirmed={"south": FINGERPRINT})
        with pytest.raises(RefusedError, match="receiver"):
            check_keys(sealed(), mute)


@given(st.integers(0, 8 * len(sealed()) - 1))
def test_no_bent_bit_leaves(context, bit):
    bent = bytearray(sealed())
    bent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CairnError):
        check_keys(bytes(bent), context)


def test_the_record_is_there_before_the_outbox_and_the_same_bytes_are_one_record(
    context, ledger, tmp_path
):
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    door, data = KeyDoor(ledger, spool), sealed()
    for _ in range(2):
        door.release(data, context)
    [waiting] = spool.outbox.glob("*.keys")
    parts = unwrap(waiting.read_bytes())
    assert list(parts) == ["SealedKeys.envelope", "SealedKeys.proof"]
    assert parts["SealedKeys.envelope"] == data == ledger.payload(waiting.stem)
    record = ledger.find(waiting.stem)
    assert record is not None
    assert (record.record_type, record.generation, record.key_id) == ("SealedKeys", 2, KEY.key_id)
    assert ledger.size == 2
    assert decode_sealed(data).arrays[0].name == record.arrays[0].name == f"south:{FINGERPRINT}"


def test_a_refusal_is_recorded_and_nothing_reaches_the_outbox(context, ledger, tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    with pytest.raises(RefusedError):
        KeyDoor(ledger, spool).release(sealed(for_site="east"), context)
    last = list(ledger.records())[-1]
    assert (last.event, last.code) == ("REFUSE", ReplyCode.REFUSED_AT_DOOR)
    assert last.detail.field == "receiver"
    assert list(spool.outbox.iterdir()) == []


def test_the_default_policy_shares_with_confirmed_sites_and_peers_count_only_when_listed():
    with pytest.raises(ValueError, match="peers count only"):
        KeySharing(share="admitted", peers={"south": FINGERPRINT})
    assert 'share = "listed"' in default_policy_text()
