"""Keys under which anybody can sign, or with which anybody can agree: refused at every door."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.exchange import OpeningKey, SealingKey
from common.crypto.identity import PublicKey, SigningKey, read_public_key
from common.crypto.sealing import Label, open_box
from common.enrolment import parse_request
from common.errors import CairnError, InputDataError, VerificationError
from site_client.keys.news import PeerNews
from site_client.keys.trust import Me, verify_peers
from tests.fuzz import corpus

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_Y = [
    0,
    1,
    PRIME - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
]
SMALL_U = [
    0,
    1,
    PRIME - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


def encoded(number: int, sign: int = 0) -> bytes:
    return (number | sign << 255).to_bytes(32, "little")


NO_KEYS = [encoded(y, sign) for y in SMALL_Y for sign in (0, 1)]
OTHER_SPELLINGS = [encoded(PRIME + y, sign) for y in range(19) for sign in (0, 1)]


def forged_by_nobody(key: bytes) -> int:
    """How many of 64 messages somebody without any secret can sign under a key."""
    public, forged = Ed25519PublicKey.from_public_bytes(key), 0
    for number in range(64):
        for commitment in NO_KEYS:
            try:
                public.verify(commitment + bytes(32), b"site-x/ledger\n%d\n" % number)
            except (InvalidSignature, ValueError):
                continue
            forged += 1
            break
    return forged


def test_the_attack_is_real():
    assert forged_by_nobody(encoded(1)) == 64


@pytest.mark.parametrize("raw", [*NO_KEYS, *OTHER_SPELLINGS, encoded(2), b"", bytes(31)])
def test_no_such_point_becomes_a_public_key(raw, tmp_path):
    with pytest.raises(InputDataError):
        PublicKey(raw)
    for text in (raw.hex(), "ed25519:" + base64.b64encode(raw).decode()):
        with pytest.raises(InputDataError):
            PublicKey.parse(text)
    file = tmp_path / "witness.pub"
    file.write_text("ed25519:" + base64.b64encode(raw).decode() + "\n")
    with pytest.raises(InputDataError):
        read_public_key(file)


@pytest.mark.parametrize("u", [*SMALL_U, *range(PRIME, 2**255), 2**255, 2**256 - 1])
def test_no_point_that_agrees_on_zero_becomes_a_sealing_key(u):
    raw = encoded(u) if u < 2**255 else u.to_bytes(32, "little")
    with pytest.raises(InputDataError):
        SealingKey(raw)
    with pytest.raises(InputDataError):
        SealingKey.parse("x25519:" + base64.b64encode(raw).decode())
    label = Label("f", 1, "0123456789abcdef", "a", "b", "0" * 64)
    with pytest.raises(VerificationError):
        open_box(raw + bytes(32), OpeningKey.generate(), label)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_somebody_made_is_one(seed):
    key = SigningKey.from_seed(seed)
    assert PublicKey.parse(key.public.text) == key.public
    key.public.verify(key.sign(seed), seed)


def test_a_signature_has_one_spelling():
    key = SigningKey.from_seed(b"k" * 32)
    signature = key.sign(b"m")
    again = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(VerificationError):
        key.public.verify(signature[:32] + again.to_bytes(32, "little"), b"m")


@pytest.mark.parametrize("field", ["ledger_key", "sealing_key"])
def test_nobody_joins_with_such_a_key_nor_is_dealt_with(field):
    prefix, raw = ("ed25519:", encoded(1)) if field == "ledger_key" else ("x25519:", encoded(0))
    request = parse_request(corpus.request())
    text = prefix + base64.b64encode(raw).decode()
    bent = request.model_copy(update={field: text})
    if field == "ledger_key":  # signed by nobody: what holds under the identity
        bent = bent.model_copy(update={"signature": (encoded(1) + bytes(32)).hex()})
    else:
        bent = bent.signed(corpus.SITE)
    from aggregator.admin.enrol import check_keys

    with pytest.raises(CairnError):
        check_keys(bent)
    me = Me("fuzz", "south", corpus.WITNESS.public, corpus.OPENING.public)
    news = PeerNews(site=corpus.NAME, join_request=bent.to_json().decode(), generation=1)
    peers, faults = verify_peers([news], me, {})
    assert not peers
    assert len(faults) == 1
