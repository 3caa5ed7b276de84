"""A run waits for a person, goes on when one approves, and ends when one declines."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner

from common.audit.cli import cli as audit
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap
from site_client.cli import cli
from site_client.plans.waiting import waiting_plans
from site_client.worker.loop import Worker
from tests.conftest import loosen

ASKS = {"approval": '"each"', "batch": "[8, 1024]", "replay_capacity": "[400, 1000]"}


@pytest.fixture
def site(make_site):
    made = make_site()
    loosen(made.folder, **ASKS, episodes="1")
    return made


def cairn(site, *words, code=0):
    words = [*(str(word) for word in words), "--site-dir", str(site.folder.root)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def asked(site, order):
    """What a worker that starts, answers what waits and ends says to an order."""
    digest = site.put(order)
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    return site.reply(digest)["RoundReport"].record.code


def audited(site, *words, code=0):
    result = CliRunner().invoke(audit, ["show", str(site.folder.ledger), *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_an_order_waits_for_a_person_and_the_same_order_is_served_once_one_approved(site):
    order, fingerprint = site.order(), site.plan.fingerprint
    assert asked(site, order) is ReplyCode.PLAN_WAITS
    (waiting,) = waiting_plans(site.folder)
    assert (waiting.plan, waiting.run) == (site.plan, "run-1")
    shown = json.loads(cairn(site, "plans", "show", fingerprint[:8], "--no-rehearsal", "--json"))
    assert (shown["state"], shown["refusal"]) == ("waiting", None)
    cairn(site, "plans", "approve", fingerprint[:8], "--by", "Ada")
    assert asked(site, order) is ReplyCode.OK
    cairn(site, "plans", "refuse", fingerprint[:8], "--by", "Bo")
    assert asked(site, site.order(1, "train")) is ReplyCode.PLAN_DECLINED


def test_a_plan_that_waits_opens_no_image(site):
    for image in (site.folder.root.parent / "images").iterdir():
        image.write_bytes(b"not an image")
    assert asked(site, site.order(1, "train")) is ReplyCode.PLAN_WAITS


def test_an_approval_holds_for_a_later_run_of_the_same_plan_and_for_no_other_plan(site):
    cairn(site, "plans", "approve", write(site), "--by", "Ada")
    assert asked(site, site.order()) is ReplyCode.OK
    assert asked(site, site.order(run="run-2")) is ReplyCode.OK
    other = site.with_plan(seed=6)
    assert asked(site, site.order(run="run-3", plan=other)) is ReplyCode.PLAN_WAITS


def test_a_bounded_policy_serves_without_a_person_until_one_declines(site):
    loosen(site.folder)
    assert asked(site, site.order()) is ReplyCode.OK
    assert waiting_plans(site.folder) == ()
    cairn(site, "plans", "refuse", write(site), "--by", "Bo")
    assert asked(site, site.order(run="run-2")) is ReplyCode.PLAN_DECLINED


def test_a_worker_that_holds_the_ledger_serves_as_soon_as_a_person_approved(site):
    digest, stop = site.put(site.order()), threading.Event()
    with Worker(site.folder, stop) as worker:
        assert worker.turn()
        assert site.reply(digest)["RoundReport"].record.code is ReplyCode.PLAN_WAITS
        running = threading.Thread(target=worker.run)
        running.start()
        try:
            cairn(site, "plans", "approve", site.plan.fingerprint[:8], "--by", "森 鷗外")
        finally:
            stop.set()
            running.join()
        stop.clear()
        digest = site.put(site.order())
        assert worker.turn()
        assert site.reply(digest)["RoundReport"].record.code is ReplyCode.OK


def test_the_auditor_reads_in_the_real_ledger_what_was_asked_and_who_agreed(site):
    order = site.order()
    assert asked(site, order) is ReplyCode.PLAN_WAITS
    cairn(site, "plans", "approve", site.plan.fingerprint[:8], "--by", "Дмитро Коваль")
    assert asked(site, order) is ReplyCode.OK
    told = json.loads(audited(site, "--json"))
    (plan,) = told["plans"]
    assert plan["text"] == "archived"
    assert [(each["event"], each["person"]) for each in plan["decisions"]] == [
        ("APPROVE", "Дмитро Коваль")
    ]
    sent = [record for record in told["records"] if record["event"] == "SEND"]
    digest = sent[-1]["order_sha256"]
    witness = ("--witness", str(site.folder.witness_key))
    read = json.loads(audited(site, "--order", digest[:8], *witness, "--json"))
    assert read["signature"] == "holds"
    assert read["disagreements"] == []
    facts = {fact["name"]: fact["value"] for fact in read["facts"]}
    assert facts["order"] == "begin of round 0, run-1"
    assert site.plan.fingerprint in facts["plan"]
    assert unwrap(order)["order"] == (site.folder.ledger / "payloads" / digest).read_bytes()


def write(site):
    import tomli_w

    path = site.folder.root.parent / "plan.toml"
    path.write_bytes(tomli_w.dumps(site.plan.model_dump(mode="json")).encode())
    return path
