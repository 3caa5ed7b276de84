"""An aggregator that takes and never signs, so that it could deny what it was sent."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path

import site_client
from common.crypto.identity import read_public_key
from common.ledger.log import Ledger
from common.ledger.notes import cosign_note
from common.ledger.verify import verify_ledger
from common.wire.codes import ReplyCode
from tests.attacks.conftest import plan_of


def test_answers_stop_while_receipts_are_withheld_and_go_on_with_the_first(trusting):
    policy = trusting.site.policy_file
    text = policy.read_text()
    assert text.count("due_within = 8") == 1
    policy.write_text(text.replace("due_within = 8", "due_within = 2"))
    plan = plan_of()
    codes = [trusting.ask(plan, run=f"run-{number}").code for number in range(4)]
    assert codes == [ReplyCode.OK] * 2 + [ReplyCode.RECEIPTS_DUE] * 2
    refusals = [record for record in trusting.records() if record["event"] == "REFUSE"]
    assert {record["detail"]["field"] for record in refusals} == {"receipts.due_within"}
    # The number came with a proof: whoever signs what it proves is answered again.
    note = (trusting.site.ledger / "checkpoint").read_bytes()
    receipt = cosign_note(note, trusting.witness, datetime.now(UTC))
    assert trusting.ask(plan, run="run-3", receipt=receipt).code is ReplyCode.OK
    keys = (trusting.site.ledger / "ledger.pub", trusting.site.witness_key)
    assert verify_ledger(trusting.site.ledger, *map(read_public_key, keys)).intact
    told = {(r["federation"], r["receiver"], r["receiver_key"]) for r in trusting.records()}
    settings = trusting.site.settings()
    assert told == {(settings.federation, settings.address, trusting.witness.public.fingerprint)}


def test_nobody_at_a_site_opens_its_ledger_without_saying_whose_it_is():
    """The one place that opens it for writing names federation and receiver."""
    callers = {
        path.name
        for path in Path(site_client.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "open"
        and isinstance(node.value, ast.Name)
        and node.value.id == Ledger.__name__
    }
    assert callers == {"ledger.py"}
