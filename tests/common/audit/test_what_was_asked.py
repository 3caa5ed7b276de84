"""An auditor reads what was asked, who agreed to it, and whether the aggregator signed it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from common.audit.cli import cli
from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import SigningKey, write_public_key
from common.errors import CairnError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.records import ArrayRecord
from common.plan import parse_plan
from common.wire.orders import SIGNATURE_CONTEXT

AGGREGATOR = SigningKey.from_seed(b"\2" * 32)
PLAN = parse_plan({"name": "heads", "seed": 7, "task": {"landmarks": ["AC", "PC"]}})
OTHER = parse_plan({"name": "other", "seed": 8, "task": {"landmarks": ["AC"]}})
PEER = "ef" * 32


def order_of(plan=PLAN, round_=1, **changes) -> bytes:
    """An order in words, as sites archive it."""
    words = {
        "v": 2,
        "message": "Order",
        "run": "run-1",
        "round": round_,
        "phase": "train",
        "plan": plan.canonical().decode(),
        "deadline_s": 60,
        "roster": [
            {"site": "site-a", "ledger_key": "aa" * 32, "samples": 12},
            {"site": "site-b", "ledger_key": PEER, "samples": 9},
        ],
        "sum": "cd" * 32,
    }
    return canonical_json(words | changes)


class Served:
    """A ledger of a site that served a plan, built as the door builds one."""

    def __init__(self, folder) -> None:
        self.folder = folder / "site-a"
        self.witness = folder / "witness.pub"
        self.key = folder / "site-a.pub"
        self._moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        signing = SigningKey.from_seed(b"\1" * 32)
        self.ledger = Ledger.open(self.folder, ledger_origin("site-a"), signing, self._clock)
        write_public_key(self.witness, AGGREGATOR.public)
        write_public_key(self.key, signing.public)

    def _clock(self):
        self._moment += timedelta(minutes=1)
        return self._moment

    def send(self, order, plan=PLAN, signer=AGGREGATOR, *, archive=True, **changes):
        payload = b"x" * (1000 + self.ledger.size)
        if archive:
            self.ledger.spool(order)
            self.ledger.spool(plan.canonical())
        words = json.loads(order)
        fields = {
            "run": words["run"],
            "round": words["round"],
            "phase": words["phase"],
            "record_type": "ModelUpdate",
            "payload_sha256": self.ledger.spool(payload),
            "bytes": len(payload),
            "arrays": (ArrayRecord(name="w", dtype="float32", shape=(2,), sha256="0" * 64),),
            "plan_fingerprint": plan.fingerprint,
            "policy_sha256": sha256_hex(b"policy"),
            "order_sha256": sha256_hex(order),
            "order_signature": signer.sign(SIGNATURE_CONTEXT + order).hex(),
        }
        return self.ledger.append("SEND", **(fields | changes))

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


def test_a_plan_without_text_is_told_by_its_fingerprint_and_by_what_is_missing(served):
    served.send(order_of(), archive=False)
    out = served.call("show")
    assert f"a plan, fingerprint {PLAN.fingerprint[:16]}: in force for 1 releases" in out
    assert "its text is not in the archive" in out
    (plan,) = json.loads(served.call("show", "--json"))["plans"]
    assert (plan["text"], plan["asked"]) == ("absent", None)


def test_a_declined_plan_is_told_too(served):
    served.ledger.append("APPROVE", plan_fingerprint=OTHER.fingerprint, person="Ada")
    served.ledger.append("DECLINE", plan_fingerprint=OTHER.fingerprint, person="Bo")
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
    served.send(order_of(OTHER, round_=2), OTHER)
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
    assert f"site-b, ledger key {PEER}, at most 9 samples" in out
    assert "cd" * 32 in out
    assert "Train agents that find AC, PC" in " ".join(out.split())
    assert "The aggregator's signature over it holds" in out
    told = json.loads(served.call(*words, "--json"))
    assert (told["signature"], told["records"], told["disagreements"]) == ("holds", [1], [])


def test_a_word_of_an_order_that_this_release_does_not_know_is_shown_as_it_stands(served):
    order = order_of(masked={"of": 3})
    served.send(order)
    out = served.call("show", "--order", sha256_hex(order)[:8], "--witness", served.witness)
    assert re.search(r'masked\s+\{"of": 3\}', out)


def test_an_order_that_somebody_else_signed_exits_4(served):
    order = order_of()
    served.send(order, signer=SigningKey.from_seed(b"\7" * 32))
    words = ("show", "--order", sha256_hex(order)[:8], "--witness", served.witness)
    assert "DOES NOT HOLD" in served.call(*words, code=4)
    assert json.loads(served.call(*words, "--json", code=4))["signature"] == "fails"


def test_one_wrong_signature_among_several_is_enough(served):
    order = order_of()
    served.send(order)
    served.send(order, signer=SigningKey.from_seed(b"\7" * 32))
    words = ("show", "--order", sha256_hex(order)[:8], "--witness", served.witness)
    assert "DOES NOT HOLD" in served.call(*words, code=4)


def test_an_order_whose_signature_nobody_kept_or_can_check_exits_4(served):
    order = order_of()
    served.send(order, order_signature=None)
    word = sha256_hex(order)[:8]
    out = served.call("show", "--order", word, "--witness", served.witness, code=4)
    assert "was not recorded" in out


def test_without_a_witness_key_no_signature_is_called_good(served):
    order = order_of()
    served.send(order)
    out = served.call("show", "--order", sha256_hex(order)[:8], code=4)
    assert "was not checked: give the aggregator's key" in out


@pytest.mark.parametrize(
    ("field", "value"),
    [("run", "run-9"), ("round", 5), ("phase", "evaluate"), ("plan_fingerprint", "9" * 64)],
)
def test_a_record_that_says_another_thing_than_its_order_exits_4(served, field, value):
    order = order_of()
    served.send(order, **{field: value})
    words = ("show", "--order", sha256_hex(order)[:8], "--witness", served.witness)
    out = served.call(*words, code=4)
    assert f"record #1 says another {field.split('_')[0]} than the order" in out


def test_an_order_that_is_not_in_the_archive_is_bad_input_and_said_to_be_absent(served):
    order = order_of()
    served.send(order, archive=False)
    words = ("show", "--order", sha256_hex(order)[:8], "--witness", served.witness)
    assert "this order is not in the archive" in served.call(*words, code=6)


def test_an_order_that_is_no_words_is_told_by_its_size(served):
    order = order_of()
    served.send(order, order_sha256=served.ledger.spool(b"\x00binary"))
    prefix = sha256_hex(b"\x00binary")[:8]
    out = served.call("show", "--order", prefix, "--witness", served.witness, code=4)
    assert "7 bytes that are no order in words" in out


@pytest.mark.parametrize(
    ("word", "says"),
    [("abc", "names no order"), ("0" * 8, "no record answers such an order")],
)
def test_a_prefix_that_names_no_order_is_usage(served, word, says):
    served.send(order_of())
    assert says in served.call("show", "--order", word, code=2)


# The archive.


@pytest.mark.parametrize("what", ["plan", "order"])
def test_an_altered_plan_or_order_breaks_the_ledger_where_it_is_first_named(served, what):
    order = order_of()
    served.ledger.append("CONFIRM", peer="site-b", peer_key=PEER, person="Ada")
    served.send(order)
    digest = {"plan": PLAN.fingerprint, "order": sha256_hex(order)}[what]
    (served.folder / "payloads" / digest).write_bytes(b"{}")
    out = served.call("verify", code=4)
    assert f"BROKEN at record #2: the {what} {digest[:16]} that it names was altered" in out


def test_archived_plans_and_orders_are_no_orphans(served):
    served.send(order_of())
    out = served.call("verify", "--witness", served.witness)
    assert "archived payloads have no record" not in out
    served2 = served.folder / "payloads" / sha256_hex(b"stray")
    served2.write_bytes(b"stray")
    assert "1 archived payloads have no record" in served.call("verify")


def test_the_page_says_what_was_asked_and_escapes_it(served, tmp_path):
    served.ledger.append("APPROVE", plan_fingerprint=PLAN.fingerprint, person="<i>Ada</i>")
    served.ledger.append("CONFIRM", peer="site-b", peer_key=PEER, person="Ada")
    order = order_of()
    served.send(order)
    page = tmp_path / "audit.html"
    served.call("report", "-o", page)
    text = page.read_text(encoding="utf-8")
    assert "approved by &lt;i&gt;Ada&lt;/i&gt;" in text
    assert "<i>Ada" not in text
    assert "Train agents that find AC, PC" in text
    assert f"train | order {sha256_hex(order)[:12]}" in text
    assert "site-b confirmed by Ada" in text
    assert "known now: site-b" in text
