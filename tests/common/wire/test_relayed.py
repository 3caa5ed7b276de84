"""What goes between the aggregator and a relay: frozen bytes, bounds, and whose word it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.crypto.identity import SigningKey
from common.errors import CairnError, RefusedError, VerificationError
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap, wrap
from common.wire.relayed import (
    HEADS,
    MOST_SAID_BYTES,
    REFUSAL,
    SIGNATURE_CONTEXT,
    SUM,
    AddNote,
    Answered,
    GatherNote,
    Heads,
    Numbered,
    RelayedSite,
    RelayRefusal,
    SummedRecord,
    TurnedAway,
    open_note,
    read_heads,
    read_partial,
    said_bytes,
    sign_note,
    writable,
)

KEY = SigningKey.from_seed(b"a" * 32)
VECTOR = Path(__file__).parents[2] / "vectors" / "wire_relayed.json"


def gather() -> GatherNote:
    rows = (
        RelayedSite(site="east", ledger_key="ed25519 x", receipt="note\n", since=3),
        RelayedSite(site="north", ledger_key="ed25519 y", since=1),
    )
    return GatherNote(
        relay="relay-1",
        run="run-1",
        round=4,
        order="ab" * 32,
        deadline_s=600,
        key_id="0123456789abcdef",
        codec="cd" * 32,
        sites=rows,
    )


def add() -> AddNote:
    answers = {"east": {"ModelUpdate": "ef" * 32, "SketchTable": "12" * 32}}
    return AddNote(relay="relay-1", run="run-1", round=4, answers=answers)


def words(**changes: object) -> Heads:
    kept = {"ModelUpdate": SummedRecord(bytes=900, sha256="ef" * 32)}
    sites = (
        Answered(site="east", ms=1500, norm=1234.5, kept=kept),
        Numbered(site="north", ms=20, code=1),
        TurnedAway(site="south", stale=True, reason="older", bytes=7),
        TurnedAway(site="west", reason="bent", bytes=8),
    )
    return Heads(**{"relay": "relay-1", "run": "run-1", "round": 4, "sites": sites} | changes)


def heads(**changes: object) -> bytes:
    return wrap({HEADS: said_bytes(words(**changes)), "head.east": b"head"})


MESSAGES = {
    "gather": lambda: sign_note(gather(), KEY),
    "add": lambda: sign_note(add(), KEY),
    "heads": heads,
    "refusal": lambda: wrap({REFUSAL: said_bytes(RelayRefusal(reason="no"))}),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_have_their_frozen_bytes(name):
    assert MESSAGES[name]().hex() == json.loads(VECTOR.read_text(encoding="utf-8"))[name]


def test_what_was_said_is_read_again():
    assert open_note(sign_note(gather(), KEY), KEY.public) == gather()
    assert open_note(sign_note(add(), KEY), KEY.public) == add()
    said, beside = read_heads(heads())
    assert (said, {name: bytes(part) for name, part in beside.items()}) == (
        words(),
        {"east": b"head"},
    )
    assert read_partial(wrap({SUM: b"sum"})) == b"sum"


@pytest.mark.parametrize("norm", [0.0, 1.0, 3.0**0.5 * 2**24, 1e-300, 2.0**80])
def test_a_length_arrives_to_the_last_bit(norm):
    said, _ = read_heads(heads(sites=(Answered(site="east", ms=0, norm=norm),)))
    assert said.sites[0].norm == norm


def test_a_note_of_another_key_or_context_is_not_read():
    note = sign_note(gather(), KEY)
    with pytest.raises(VerificationError):
        open_note(note, SigningKey.from_seed(b"b" * 32).public)
    body = note[64:]
    with pytest.raises(VerificationError):
        open_note(KEY.sign(b"cairn/turn/v1\n" + body) + body, KEY.public)
    with pytest.raises(RefusedError, match="too long"):
        open_note(bytes(MOST_SAID_BYTES + 1), KEY.public)


def bent(**changes: object) -> bytes:
    """A signed gather note of other words."""
    body = {**gather().model_dump(mode="json", exclude_none=True), **changes}
    data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return KEY.sign(SIGNATURE_CONTEXT + data) + data


ROW = {"ledger_key": "k", "since": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"message": "RelayOther"},
        {"extra": 1},
        {"deadline_s": 0},
        {"deadline_s": "600"},
        {"order": "ab"},
        {"sites": []},
        {"sites": [{"site": "b", **ROW}, {"site": "a", **ROW}]},
        {"sites": [{"site": "a", **ROW}, {"site": "a", **ROW}]},
        {"sites": [{"site": f"s{n:04d}", **ROW} for n in range(1001)]},
        {"sites": [{"site": "a", **ROW, "receipt": "r" * 3001}]},
        {"sites": [{"site": "../a", **ROW}]},
    ],
)
def test_a_signed_note_of_another_form_is_refused(changes):
    assert open_note(bent(), KEY.public) == gather()
    with pytest.raises(CairnError):
        open_note(bent(**changes), KEY.public)


def said(*rows: dict[str, object]) -> bytes:
    """Heads of these rows, whatever they are."""
    body = {"v": 1, "message": "RelayHeads", "relay": "r", "run": "r", "round": 1}
    text = json.dumps({**body, "sites": list(rows)}, sort_keys=True, separators=(",", ":"))
    return wrap({HEADS: text.encode(), "head.a": b"x"})


ANSWER = {"said": "answered", "site": "a", "ms": 1, "kept": {}}


@pytest.mark.parametrize(
    "rows",
    [
        [{**ANSWER, "norm": -1}],
        [{**ANSWER, "norm": "1"}],
        [{**ANSWER, "ms": -1}],
        [{**ANSWER, "kept": {"ModelUpdate": {"bytes": 1, "sha256": "zz"}}}],
        [{**ANSWER, "kept": {f"A{'b' * n}": {"bytes": 1, "sha256": "0" * 64} for n in range(9)}}],
        [ANSWER, ANSWER],
        [ANSWER, {"said": "number", "site": "b", "ms": 1, "code": 999}],
        [ANSWER, {"said": "number", "site": "b", "ms": 1, "code": int(ReplyCode.FORGED_SUM)}],
        [ANSWER, {"said": "turned-away", "site": "b", "reason": "r" * 1001, "bytes": 1}],
        [ANSWER, {"said": "turned-away", "site": "b", "reason": "a\nb", "bytes": 1}],
        [ANSWER, {"said": "other", "site": "b"}],
        [{**ANSWER, "site": "b"}],
        [{"said": "number", "site": "a", "ms": 1, "code": 1}],
        [],
    ],
)
def test_heads_of_another_form_or_of_other_sites_than_they_name_are_refused(rows):
    read_heads(said(ANSWER))
    with pytest.raises(CairnError):
        read_heads(said(*rows))


def test_what_is_too_long_or_something_else_is_refused():
    with pytest.raises(RefusedError, match="too large"):
        read_heads(heads(), most=len(heads()) - 1)
    with pytest.raises(RefusedError, match="too long"):
        read_heads(wrap({HEADS: b" " * (MOST_SAID_BYTES + 1)}))
    for read in (read_heads, read_partial):
        with pytest.raises(RefusedError, match="not a relay's answer"):
            read(wrap({"other": b""}))
    with pytest.raises(RefusedError, match="one part"):
        read_partial(wrap({SUM: b"", "more": b""}))
    with pytest.raises(RefusedError, match=r"does not do its errand.*no disk"):
        read_partial(wrap({REFUSAL: said_bytes(RelayRefusal(reason="no disk"))}))


def test_any_words_of_a_failure_can_travel():
    reason = writable("a\tb\u202ec\n" + "d" * 2000)
    assert RelayRefusal(reason=reason).reason.startswith("a b c ddd")
    assert unwrap(wrap({REFUSAL: said_bytes(RelayRefusal(reason=reason))}))
