"""An auditor reads what was asked, who agreed to it, and whether the aggregator signed it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from common.audit.cli import cli
from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import SigningKey, write_public_key
from common.errors import CairnError
from common.plan import parse_plan
from tests.ledgers import AGGREGATOR, PEER, Written, order_bytes, report

PLAN = parse_plan({"name": "heads", "seed": 7, "task": {"landmarks": ["AC", "PC"]}})
OTHER = parse_plan({"name": "other", "seed": 8, "task": {"landmarks": ["AC"]}})


def order_of(plan=PLAN, round_=1, **changes) -> bytes:
    """An order in words, as sites archive it."""
    return order_bytes(plan, round_, **changes)


class Served:
    """A ledger of a site that served a plan, built as the door builds one."""

    def __init__(self, folder) -> None:
        self.folder = folder / "site-a"
        self.witness = folder / "witness.pub"
        self.key = folder / "site-a.pub"
        self._written = Written(self.folder)
        self.ledger = self._written.ledger
        write_public_key(self.witness, AGGREGATOR.public)
        write_public_key(self.key, self._written.signing.public)

    def send(self, order, plan=PLAN, signer=AGGREGATOR, **changes):
        words = json.loads(order)
        payload = report(plan, words["round"], run=words["run"])
        self._written.release([payload], plan, order, signer, **changes)
        return sha256_hex(payload)

    def digest_of(self, what, order):
        texts = {"plan": PLAN.fingerprint, "order": sha256_hex(order)}
        return texts.get(what, self._written.policy.sha256)

    def call(self, *words, code=0):
        self.ledger.close()
        words = (words[0], self.folder, "--key", self.key, *words[1:])
        result = CliRunner().invoke(cli, [str(word) for word in words])
        if isinstance(result.exception, CairnError):
            assert int(result.exception.exit_code) == code, str(result.exception)
            return str(result.exception)
        assert result.exit_code == code, result.output
        return result.output


@pytest.fixture
def served(tmp_path):
    served = Served(tmp_path)
    yield served
    served.ledger.close()


def test_each_release_says_phase_and_order(served):
    order = order_of()
    served.send(order)
    out = served.call("show")
    assert f"train | order {sha256_hex(order)[:12]}" in out
    (record,) = [r for r in json.loads(served.call("show", "--json"))["records"] if r["seq"] == 1]
    assert record["phase"] == "train"
    assert record["order_sha256"] == sha256_hex(order)
    assert len(record["order_signature"]) == 128


def test_the_plan_in_force_is_told_in_words_with_who_approved_it_and_when(served):
    served.ledger.append("APPROVE", plan_fingerprint=PLAN.fingerprint, person="Дмитро Коваль")
    served.send(order_of())
    served.send(order_of(round_=2))
    out = served.call("show")
    assert f"heads, fingerprint {PLAN.fingerprint[:16]}: in force for 2 releases of run-1" in out
    assert "approved by Дмитро Коваль, 2026-01-02T03:06:05Z (record #1)" in out
    assert "Train agents that find AC, PC" in " ".join(out.split())
    assert "What the aggregator sees, and what not" in out
    (plan,) = json.loads(served.call("show", "--json"))["plans"]
    assert (plan["text"], plan["sent"], plan["runs"]) == ("archived", 2, ["run-1"])
    assert plan["decisions"][0]["person"] == "Дмитро Коваль"
    assert plan["asked"]["fields"]["task.landmarks"] == ["AC", "PC"]


def test_a_release_under_a_plan_that_nobody_approved_is_said_to_be_one(served):
    served.send(order_of())
    assert "approved by nobody: no record of a decision" in served.call("show")


@pytest.mark.parametrize("what", ["plan", "order", "policy"])
def test_a_release_whose_plan_order_or_policy_has_no_text_breaks_the_ledger(served, what):
    order = order_of()
    served.send(order)
    (served.folder / "payloads" / served.digest_of(what, order)).unlink()
    out = served.call("verify", code=4)
    assert f"BROKEN at record #1: the text of its {what} is missing" in out


def test_a_declined_plan_is_told_too(served):
    served.ledger.append("APPROVE", plan_fingerprint=OTHER.fingerprint, person="Ada")
    served.ledger.append("DECLINE", plan_fingerprint=OTHER.fingerprint, person="Bo")
    served.ledger.spool(OTHER.canonical())
    served.ledger.append(
        "REFUSE", run="run-2", round=0, code=17, plan_fingerprint=OTHER.fingerprint
    )
    out = served.call("show")
    assert "nothing left under it of run-2, 1 refused" in out
    assert out.index("approved by Ada") < out.index("declined by Bo")


def test_whom_a_person_confirmed_and_forgot_is_told(served):
    served.ledger.append("CONFIRM", peer="site-b", peer_key=PEER, person="Ada")
    served.ledger.append("CONFIRM", peer="site-c", peer_key="ab" * 32, person="Ada")
    served.ledger.append("FORGET", peer="site-c", person="Bo")
    out = served.call("show")
    assert f"site-b confirmed by Ada, 2026-01-02T03:06:05Z (record #1), ledger key {PEER}" in out
    assert "site-c forgotten by Bo" in out
    assert "known now: site-b" in out
    told = json.loads(served.call("show", "--json"))
    assert told["known_peers"] == {"site-b": PEER}
    assert [word["event"] for word in told["peers"]] == ["CONFIRM", "CONFIRM", "FORGET"]


def test_narrowed_records_tell_only_their_own_plans(served):
    served.send(order_of())
    served.send(order_of(OTHER, round_=2, run="run-2"), OTHER)
    told = json.loads(served.call("show", "--round", 2, "--json"))
    assert [plan["fingerprint"] for plan in told["plans"]] == [OTHER.fingerprint]


# One order.


def test_an_archived_order_is_told_in_words_and_its_signature_holds(served):
    order = order_of()
    served.send(order)
    words = ("show", "--order", sha256_hex(order)[:8], "--witness", served.witness)
    out = served.call(*words)
    assert "train of round 1, run-1" in out
    assert f"heads (training), fingerprint {PLAN.fingerprint}" in out
    assert f"site-b, ledger key {PEER}, at most 12 samples" in out
    assert "cd" * 32 in out
    assert "Train agents that find AC, PC" in " ".join(out.split())
    assert "The aggregator's signature over it holds" in out
    told = json.loads(served.call(*words, "--json"))
    assert (told["signature"], told["records"], told["disagreements"]) == ("holds", [1], [])


def test_a_word_of_an_order_that_this_release_does_not_know_breaks_its_record(served):
    words = json.loads(order_of()) | {"masked": {"of": 3}}
    served.send(canonical_json(words))
    out = served.call("verify", code=4)
    assert "BROKEN at record #1: an order is not valid: masked must be a known key" in out


def test_an_order_that_somebody_else_signed_breaks_its_record(served):
    order = order_of()
    served.send(order, signer=SigningKey.from_seed(b"\7" * 32))
    for words in (("verify",), ("show", "--order", sha256_hex(order)[:8])):
        out = served.call(*words, "--witness", served.witness, code=4)
        assert "BROKEN at record #1: a signature does not hold" in out


def test_an_order_that_somebody_else_signed_is_told_to_whom_brings_no_key(served):
    order = order_of()
    served.send(order, signer=SigningKey.from_seed(b"\7" * 32))
    out = served.call("show", "--order", sha256_hex(order)[:8], code=4)
    assert "was not checked" in out


def test_an_order_whose_signature_nobody_kept_breaks_its_record(served):
    order = order_of()
    served.send(order, order_signature=None)
    word = sha256_hex(order)[:8]
    assert "was not recorded" in served.call("show", "--order", word, code=4)
    out = served.call("verify", "--witness", served.witness, code=4)
    assert "order_signature must be there, got none" in out


def test_without_a_witness_key_no_signature_is_called_good(served):
    order = order_of()
    served.send(order)
    out = served.call("show", "--order", sha256_hex(order)[:8], code=4)
    assert "was not checked: give the aggregator's key" in out


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", "run-9"),
        ("round", 5),
        ("phase", "evaluate"),
        ("plan_fingerprint", OTHER.fingerprint),
    ],
)
def test_a_record_that_says_another_thing_than_its_order_breaks_the_ledger(served, field, value):
    served.ledger.spool(OTHER.canonical())
    served.send(order_of(), **{field: value})
    out = served.call("verify", code=4)
    assert f"BROKEN at record #1: what was released is not what its record says: {field[:4]}" in out


def test_an_order_that_is_no_words_breaks_its_record(served):
    served.send(order_of(), order_sha256=served.ledger.spool(b"\x00binary"))
    assert "BROKEN at record #1: unreadable record: order" in served.call("verify", code=4)


@pytest.mark.parametrize(
    ("word", "says"),
    [("abc", "names no order"), ("0" * 8, "no record answers such an order")],
)
def test_a_prefix_that_names_no_order_is_usage(served, word, says):
    served.send(order_of())
    assert says in served.call("show", "--order", word, code=2)


# The archive.


@pytest.mark.parametrize("what", ["plan", "order", "policy"])
def test_an_altered_text_breaks_the_ledger_where_it_is_first_named(served, what):
    order = order_of()
    served.ledger.append("CONFIRM", peer="site-b", peer_key=PEER, person="Ada")
    served.send(order)
    digest = served.digest_of(what, order)
    (served.folder / "payloads" / digest).write_bytes(b"{}")
    out = served.call("verify", code=4)
    assert f"BROKEN at record #2: the {what} that it names was altered: {digest[:16]}" in out


def test_archived_texts_are_no_strays_and_a_stray_is_a_doubt(served):
    served.send(order_of())
    assert "belong to no record" not in served.call("verify", code=9)
    (served.folder / "payloads" / sha256_hex(b"stray")).write_bytes(b"stray")
    assert "1 archived files belong to no record" in served.call("verify", code=9)


def test_the_page_says_what_was_asked_and_escapes_it(served, tmp_path):
    served.ledger.append("APPROVE", plan_fingerprint=PLAN.fingerprint, person="<i>Ada</i>")
    served.ledger.append("CONFIRM", peer="site-b", peer_key=PEER, person="Ada")
    order = order_of()
    served.send(order)
    page = tmp_path / "audit.html"
    served.call("report", "-o", page, code=9)
    text = page.read_text(encoding="utf-8")
    assert "approved by &lt;i&gt;Ada&lt;/i&gt;" in text
    assert "<i>Ada" not in text
    assert "Train agents that find AC, PC" in text
    assert f"train | order {sha256_hex(order)[:12]}" in text
    assert "site-b confirmed by Ada" in text
    assert "known now: site-b" in text
