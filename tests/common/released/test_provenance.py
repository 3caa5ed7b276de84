"""Where a model comes from: one spelling, one signature, and nothing that is not understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import SigningKey
from common.errors import VerificationError
from common.released.provenance import (
    SIGNATURE_CONTEXT,
    Provenance,
    RoundSum,
    decode_provenance,
    sign_provenance,
    verify_provenance,
)
from common.wire import orders
from common.wire.orders import RosterEntry

KEY = SigningKey.from_seed(b"k" * 32)
digests = st.integers(0, 255).map(lambda n: f"{n:02x}" * 32)
sites = st.lists(st.sampled_from(["a", "b-1", "north", "0"]), min_size=1, unique=True)


@st.composite
def provenances(draw: st.DrawFn) -> Provenance:
    names = sorted(draw(sites))
    rounds = draw(st.integers(0, 3))
    return Provenance(
        federation="test",
        run="run-1",
        verdict=draw(st.sampled_from(["COMPLETED", "DEGRADED"])),
        finished="2030-01-02T03:04:05Z",
        plan=draw(digests),
        start=draw(digests),
        weights=draw(digests),
        server_momentum=draw(st.floats(0, 0.99)),
        roster=tuple(
            RosterEntry(site=name, ledger_key=draw(digests), samples=draw(st.integers(1, 9)))
            for name in names
        ),
        rounds=tuple(
            RoundSum(round=n + 1, sites=tuple(names), samples=n, sum_sha256=draw(digests))
            for n in range(rounds)
        ),
        link=draw(digests),
        files={"model.safetensors": draw(digests)},
    )


@given(provenances())
def test_what_was_written_is_read_back_and_its_signature_holds(origin):
    data = origin.encode()
    assert decode_provenance(data) == origin
    assert decode_provenance(data).encode() == data
    verify_provenance(data, sign_provenance(data, KEY), KEY.public)


@given(provenances(), st.data())
def test_no_other_byte_has_the_signature(origin, data):
    written = origin.encode()
    place = data.draw(st.integers(0, len(written) - 1))
    bent = written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :]
    with pytest.raises(VerificationError):
        verify_provenance(bent, sign_provenance(written, KEY), KEY.public)


@given(provenances())
def test_a_signature_of_an_order_is_none_of_a_model(origin):
    data = origin.encode()
    assert not SIGNATURE_CONTEXT.startswith(orders.SIGNATURE_CONTEXT)
    as_an_order = KEY.sign(orders.SIGNATURE_CONTEXT + data).hex().encode()
    with pytest.raises(VerificationError):
        verify_provenance(data, as_an_order, KEY.public)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"v": 2},
        {"verdict": "FAILED"},
        {"weights": "AB" * 32},
        {"finished": "yesterday"},
        {"files": {"../model.safetensors": "ab" * 32}},
        {"server_momentum": 1.0},
        {"rounds": [{"round": 2, "sites": ["a"], "samples": 1, "sum_sha256": "ab" * 32}]},
        {"rounds": [{"round": 1, "sites": [], "samples": 1, "sum_sha256": "ab" * 32}]},
        {"roster": []},
    ],
)
def test_what_is_not_understood_is_refused(change):
    whole = {
        "v": 1,
        "message": "Model",
        "federation": "test",
        "run": "run-1",
        "verdict": "COMPLETED",
        "finished": "2030-01-02T03:04:05Z",
        "plan": "ab" * 32,
        "start": "ab" * 32,
        "weights": "ab" * 32,
        "server_momentum": 0.5,
        "roster": [{"site": "a", "ledger_key": "ab" * 32, "samples": 1}],
        "rounds": [],
        "link": "ab" * 32,
        "files": {},
    }
    assert decode_provenance(canonical_json(whole)).run == "run-1"
    with pytest.raises(VerificationError):
        decode_provenance(canonical_json(whole | change))


def test_another_spelling_of_the_same_is_refused():
    for data in (b"{}", b'{"v": 1}', b"", b"\xff", b"[" * 100_000):
        with pytest.raises(VerificationError):
            decode_provenance(data)
    with pytest.raises(VerificationError):
        parse_canonical_json(b'{"b":1,"a":2}', "provenance")
