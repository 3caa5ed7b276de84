"""A policy says whose cosignatures are enough, and lets nobody count twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.identity import SigningKey
from common.errors import InputDataError
from common.ledger.notes import Algorithm, NoteKey, cosignature, sign_checkpoint
from common.witness.policy import parse_policy, read_policy
from common.witness.policy_text import parse_text
from common.witness.vkeys import parse_log_key, parse_vkey, parse_witness_key, vkey_text
from tests.common.witness.conftest import NOW, ORIGIN, Log

LOG = Log(SigningKey.from_seed(b"\1" * 32)).grow(3)
NAMES = ("north", "south", "west")
KEYS = {name: SigningKey.from_seed(bytes([10 + n]) * 32) for n, name in enumerate(NAMES)}


def note_key(name: str, key: SigningKey | None = None) -> NoteKey:
    public = (key or KEYS[name]).public
    return NoteKey(f"{name}.example/w", public, Algorithm.COSIGNATURE)


def witness_lines(names=NAMES) -> str:
    return "".join(f"witness {name} {vkey_text(note_key(name))}\n" for name in names)


def policy(tail: str):
    return parse_policy(f"log {vkey_text(LOG.public)}\n{witness_lines()}{tail}")


def cosigned(names, *, at=NOW, log: Log = LOG) -> bytes:
    lines = [
        cosignature(log.checkpoint, f"{name}.example/w", KEYS[name], at).line() for name in names
    ]
    return log.note + b"".join(lines)


@given(st.sets(st.sampled_from(NAMES)), st.integers(1, 3))
def test_k_of_n_is_witnessed_by_k_and_by_no_fewer(who, least):
    judgement = policy(f"group g {least} north south west\nquorum g\n").judge(cosigned(sorted(who)))
    assert judgement.witnessed == (len(who) >= least)
    assert {each.name for each in judgement.who} == who
    assert set(judgement.missing) == set(NAMES) - who


def test_groups_of_groups_are_judged_from_the_inside():
    nested = policy("group a any north south\ngroup b all a west\nquorum b\n")
    assert nested.says == "2 of (1 of north, south), west"
    assert nested.judge(cosigned(["south", "west"])).witnessed
    assert not nested.judge(cosigned(["north", "south"])).witnessed


def test_the_quorums_time_is_the_one_that_it_needs():
    two = policy("group g 2 north south west\nquorum g\n")
    hours = dict(zip(NAMES, (1, 5, 3), strict=True))
    lines = [
        cosignature(LOG.checkpoint, f"{n}.example/w", KEYS[n], NOW + timedelta(hours=h)).line()
        for n, h in hours.items()
    ]
    assert two.judge(LOG.note + b"".join(lines)).at == NOW + timedelta(hours=3)


def test_a_policy_file_is_read_with_comments_and_tabs(tmp_path):
    path = tmp_path / "policy"
    path.write_text(f"# ours\n\n \t{witness_lines(['north'])}quorum\tnorth\n")
    assert read_policy(path).judge(cosigned(["north"]), log_key=LOG.public).witnessed


def test_a_policy_without_logs_needs_to_be_given_one():
    bare = parse_policy(f"{witness_lines()}quorum north\n")
    assert not bare.judge(cosigned(["north"])).witnessed
    assert bare.judge(cosigned(["north"]), log_key=LOG.public).witnessed


@pytest.mark.parametrize(
    "text",
    [
        "",
        witness_lines(),
        f"{witness_lines()}quorum none\n",
        f"{witness_lines()}quorum nobody\n",
        f"{witness_lines()}quorum north\nquorum south\n",
        f"{witness_lines()}group g 0 north\nquorum g\n",
        f"{witness_lines()}group g 2 north\nquorum g\n",
        f"{witness_lines()}group g 01 north\nquorum g\n",
        f"{witness_lines()}group g any\nquorum g\n",
        f"{witness_lines()}group g 2 north north\nquorum g\n",
        f"{witness_lines()}group g any north\ngroup h any north\nquorum g\n",
        f"{witness_lines()}group north any south\nquorum north\n",
        f"quorum north\n{witness_lines()}",
        f"{witness_lines()}quorum north\nextra line\n",
        f"{witness_lines()}quorum north\r\n",
        "witness north not-a-key\nquorum north\n",
        f"witness north {vkey_text(LOG.public)}\nquorum north\n",
        f"log {vkey_text(note_key('north'))}\n{witness_lines()}quorum south\n",
        f"witness n {vkey_text(note_key('north'))} ftp://x\nquorum n\n",
        f"witness n {vkey_text(note_key('north'))} http://far.example\nquorum n\n",
    ],
)
def test_what_is_no_policy_is_refused(text):
    with pytest.raises(InputDataError):
        parse_policy(text)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    with pytest.raises(InputDataError):
        parse_text(f"{text}\nquorum none")


def test_a_verifier_key_has_one_spelling_and_its_own_key_id():
    text = vkey_text(LOG.public)
    assert text == "site-a/ledger+" + text.split("+", 1)[1]
    assert parse_vkey(text) == LOG.public
    name, key_id, material = text.split("+", 2)
    for other in (
        f"other+{key_id}+{material}",
        f"{name}+00000000+{material}",
        f"{name}+{key_id.upper()}1+{material}",
        f"{name}+{key_id}+{material}A",
        f"{name}+{key_id}",
        f"+{key_id}+{material}",
        "a+b+" + "A" * 4096,
    ):
        with pytest.raises(InputDataError):
            parse_vkey(other)


def test_logs_and_witnesses_do_not_pass_for_each_other():
    with pytest.raises(InputDataError):
        parse_log_key(vkey_text(note_key("north")))
    with pytest.raises(InputDataError):
        parse_witness_key(vkey_text(LOG.public))


def test_another_log_is_not_the_one_that_counts():
    other = Log(SigningKey.from_seed(b"\5" * 32), ORIGIN).grow(3)
    one = policy("quorum north\n")
    assert not one.judge(cosigned(["north"], log=other)).witnessed
    assert not one.judge(b"").witnessed
    wrong_name = sign_checkpoint(Log(LOG.key, "site-b/ledger").checkpoint, LOG.key)
    assert not one.judge(wrong_name).witnessed
