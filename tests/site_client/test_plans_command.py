"""A person reads a plan and decides about it; the decision is a record, with their name."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
import tomli_w

from common.cli import run
from common.crypto.identity import read_signing_key
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.policy import read_policy
from common.wire.codes import ReplyCode
from site_client.cli import cli
from site_client.decisions.making import Decision, decide
from site_client.decisions.standing import Standing, read_standing
from site_client.plans.approval import (
    PlanDeclinedError,
    PlanWaitsError,
    require_approved,
)
from site_client.plans.finding import plans_that_wait
from site_client.plans.waiting import (
    MOST_KEPT,
    kept_plans,
    note_waiting,
    waiting_plans,
)
from site_client.worker.failures import code_of
from site_client.worker.loop import Worker
from tests.conftest import loosen

ASKS = {"approval": '"each"', "batch": "[8, 1024]", "replay_capacity": "[400, 1000]"}
"""Bounds that the small plan keeps to, and a person to be asked."""
NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
ORDER = "ab" * 32


@pytest.fixture
def site(make_site):
    made = make_site()
    loosen(made.folder, **ASKS, episodes="1")
    return made


@pytest.fixture
def cairn(capsys, site):
    """Run a command about the site: (exit code, standard output, standard error)."""

    def call(*words, folder=None):
        capsys.readouterr()
        root = (folder or site.folder).root
        with pytest.raises(SystemExit) as ended:
            run(cli, [*(str(word) for word in words), "--site-dir", str(root)])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def waits(site, plan=None, run="run-1", now=NOON):
    plan = plan or site.plan
    note_waiting(site.folder, plan, run, ORDER, now)
    return plan.fingerprint


def write_plan(folder, plan):
    path = folder / f"{plan.name}.toml"
    path.write_bytes(tomli_w.dumps(plan.model_dump(mode="json")).encode())
    return path


def decisions(site):
    """Event, plan and person of every decision in the ledger, opened as its one writer does."""
    settings = site.folder.settings()
    key = read_signing_key(site.folder.ledger_key)
    with Ledger.open(
        site.folder.ledger, ledger_origin(settings.site), key, lambda: datetime.now(UTC)
    ) as ledger:
        return [
            (record.event, record.plan_fingerprint, record.person)
            for record in ledger.records()
            if record.event in ("APPROVE", "DECLINE")
        ]


# What waits.


def test_a_waiting_plan_is_kept_once_and_since_its_first_order(site):
    fingerprint = waits(site)
    waits(site, run="run-2", now=NOON + timedelta(hours=9))
    (kept,) = waiting_plans(site.folder)
    assert kept.plan == site.plan
    assert (kept.since, kept.run) == ("2026-03-04T12:00:00Z", "run-2")
    assert [path.name for path in site.folder.waiting_plans.iterdir()] == [f"{fingerprint}.json"]


def test_noting_the_same_again_writes_nothing(site):
    path = site.folder.waiting_plans / f"{waits(site)}.json"
    before = path.stat()
    waits(site, now=NOON + timedelta(hours=1))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_is_not_the_plan_of_its_name_is_passed_over_and_comes_back(site):
    path = site.folder.waiting_plans / f"{waits(site)}.json"
    other = path.with_name("c" * 64 + ".json")
    other.write_bytes(path.read_bytes())
    assert [kept.plan for kept in waiting_plans(site.folder)] == [site.plan]
    path.write_bytes(path.read_bytes()[:-20])
    assert waiting_plans(site.folder) == ()
    waits(site)
    assert [kept.plan for kept in waiting_plans(site.folder)] == [site.plan]


def test_an_aggregator_that_invents_plans_fills_a_bounded_folder(site):
    plans = [site.with_plan(seed=seed) for seed in range(MOST_KEPT + 5)]
    for number, plan in enumerate(plans):
        waits(site, plan, now=NOON + timedelta(seconds=number))
    kept = [each.plan for each in kept_plans(site.folder)]
    assert kept == plans[5:], "the ones that came first make room"


# The rule.


def standing_of(*events):
    standing = Standing()
    for number, (event, plan) in enumerate(events):
        from common.ledger.records import make_record

        standing.take(
            make_record(
                seq=number + 1,
                event=event,
                now=NOON,
                site="north",
                fields={"plan_fingerprint": plan.fingerprint, "person": "Ada"},
            )
        )
    return standing


def test_a_plan_is_served_once_approved_and_until_declined(site):
    policy, plan = read_policy(site.folder.policy_file), site.plan
    assert policy.plans.approval == "each"
    with pytest.raises(PlanWaitsError) as waiting:
        require_approved(policy, Standing(), plan)
    assert code_of(waiting.value) is ReplyCode.PLAN_WAITS
    require_approved(policy, standing_of(("APPROVE", plan)), plan)
    with pytest.raises(PlanDeclinedError) as declined:
        require_approved(policy, standing_of(("APPROVE", plan), ("DECLINE", plan)), plan)
    assert code_of(declined.value) is ReplyCode.PLAN_DECLINED
    require_approved(policy, standing_of(("DECLINE", plan), ("APPROVE", plan)), plan)


def test_an_approval_is_of_one_plan_and_of_no_other(site):
    policy = read_policy(site.folder.policy_file)
    changed = site.with_plan(seed=6)
    with pytest.raises(PlanWaitsError):
        require_approved(policy, standing_of(("APPROVE", changed)), site.plan)


def test_a_bounded_policy_asks_nobody_and_still_hears_a_no(site):
    policy = read_policy(site.folder.policy_file)
    plans = policy.plans.model_copy(update={"approval": "bounded"})
    bounded = policy.model_copy(update={"plans": plans})
    require_approved(bounded, Standing(), site.plan)
    with pytest.raises(PlanDeclinedError):
        require_approved(bounded, standing_of(("DECLINE", site.plan)), site.plan)


# Deciding.


def test_approving_a_waiting_plan_by_its_prefix_is_a_record_with_the_persons_name(cairn, site):
    fingerprint = waits(site)
    code, out, _ = cairn("plans", "approve", fingerprint[:8], "--by", "Ada Lovelace")
    assert code == 0
    assert f"small {fingerprint[:12]} is approved by Ada Lovelace" in out
    assert decisions(site) == [("APPROVE", fingerprint, "Ada Lovelace")]
    assert plans_that_wait(site.folder) == ()
    require_approved(read_policy(site.folder.policy_file), read_standing(site.folder), site.plan)


def test_the_newest_word_counts_and_every_word_stays_on_record(cairn, site):
    fingerprint = waits(site)
    cairn("plans", "approve", fingerprint[:8], "--by", "Ada")
    assert cairn("plans", "refuse", fingerprint[:8], "--by", "Bo")[0] == 0
    assert fingerprint in read_standing(site.folder).declined
    assert cairn("plans", "approve", fingerprint[:8], "--by", "Ada")[0] == 0
    assert [(event, who) for event, _, who in decisions(site)] == [
        ("APPROVE", "Ada"),
        ("DECLINE", "Bo"),
        ("APPROVE", "Ada"),
    ]


def test_a_plan_file_may_be_approved_before_any_run_asks_for_it(cairn, site, tmp_path):
    path = write_plan(tmp_path, site.plan)
    assert cairn("plans", "approve", path, "--by", "Ada")[0] == 0
    assert decisions(site) == [("APPROVE", site.plan.fingerprint, "Ada")]
    (known,) = json.loads(cairn("plans", "--json")[1])["plans"]
    assert (known["plan"], known["state"], known["run"]) == ("small", "approved", None)
    code, out, _ = cairn("plans", "show", site.plan.fingerprint[:10], "--no-rehearsal")
    assert code == 0
    assert "Approved by Ada" in out


@pytest.mark.parametrize(
    "person", ["Дмитро Коваль", "森 鷗外", "فاطمه\u200cزهرا", "Zoë O'Neill-Ångström", "நிலா"]
)
def test_a_persons_name_may_be_of_any_script(cairn, site, person):
    fingerprint = waits(site)
    code, out, _ = cairn("plans", "approve", fingerprint[:8], "--by", person)
    assert code == 0
    assert person in out
    assert decisions(site) == [("APPROVE", fingerprint, person)]
    assert person in cairn("plans")[1]
    (known,) = json.loads(cairn("plans", "--json")[1])["plans"]
    assert known["person"] == person


@pytest.mark.parametrize("person", ["", " ", "a\nb", "x" * 65])
def test_a_name_that_is_none_is_bad_input_and_decides_nothing(cairn, site, person):
    fingerprint = waits(site)
    code, _, err = cairn("plans", "approve", fingerprint[:8], "--by", person)
    assert code == 6
    assert "person" in err
    assert decisions(site) == []


def test_without_a_name_the_login_decides(cairn, site, monkeypatch):
    monkeypatch.setenv("LOGNAME", "itadmin")
    fingerprint = waits(site)
    assert cairn("plans", "refuse", fingerprint[:8])[0] == 0
    assert decisions(site) == [("DECLINE", fingerprint, "itadmin")]


def test_a_name_cannot_steer_the_terminal_that_lists_it(cairn, site):
    fingerprint = waits(site)
    assert cairn("plans", "approve", fingerprint[:8], "--by", "a\x9b2J\u202eb")[0] == 0
    out = cairn("plans")[1]
    assert "a?2J?b" in out
    assert "\x9b" not in out


def test_a_decision_made_while_a_worker_holds_the_ledger_is_recorded_by_it(cairn, site):
    fingerprint = waits(site)
    stop = threading.Event()
    with Worker(site.folder, stop) as worker:
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            code, out, err = cairn("plans", "approve", fingerprint[:8], "--by", "Ada")
        finally:
            stop.set()
            thread.join()
    assert code == 0, err
    assert "approved by Ada" in out
    assert decisions(site) == [("APPROVE", fingerprint, "Ada")]
    assert list(site.folder.decisions.iterdir()) == []


# Which plan is meant.


def test_a_plan_beyond_the_policy_cannot_be_approved_and_the_field_is_named(cairn, site):
    plan = site.with_plan(limits={"privacy_tier": 0})
    fingerprint = waits(site, plan)
    code, _, err = cairn("plans", "approve", fingerprint[:8], "--by", "Ada")
    assert code == 3
    assert "limits.privacy_tier must be at least 1" in err
    assert decisions(site) == []
    assert cairn("plans", "refuse", fingerprint[:8], "--by", "Ada")[0] == 0


def alike(site, digits=1):
    """Two plans whose fingerprints begin alike."""
    seen = {}
    for seed in range(1000):
        plan = site.with_plan(seed=seed)
        other = seen.setdefault(plan.fingerprint[:digits], plan)
        if other is not plan:
            return other, plan
    raise AssertionError


def test_a_prefix_of_two_plans_decides_about_neither(cairn, site, monkeypatch):
    from site_client.plans import finding

    # Eight digits of SHA-256 do not meet by chance; two plans that share one stand for them.
    monkeypatch.setattr(finding, "LEAST_DIGITS", 1)
    one, two = alike(site)
    waits(site, one)
    decide(
        site.folder,
        [Decision.made(event="DECLINE", person="Bo", plan_fingerprint=two.fingerprint)],
    )
    code, _, err = cairn("plans", "approve", one.fingerprint[:1], "--by", "Ada")
    assert code == 2
    assert "several plans begin like that" in err
    assert [event for event, _, _ in decisions(site)] == ["DECLINE"]
    assert cairn("plans", "approve", one.fingerprint[:12], "--by", "Ada")[0] == 0


@pytest.mark.parametrize("word", ["abcdef0", "not-a-plan", "ABCDEF01", "0" * 65])
def test_a_word_that_is_no_plan_and_no_prefix_is_usage(cairn, site, word):
    waits(site)
    code, _, err = cairn("plans", "approve", word)
    assert code == 2
    assert "names no plan" in err


def test_a_prefix_that_no_plan_has_says_where_to_look(cairn, site):
    waits(site)
    code, _, err = cairn("plans", "refuse", "01234567")
    assert code == 2
    assert "no plan of this site begins like that" in err
    assert "cairn-site plans" in err


def test_of_a_bare_decision_the_text_must_be_brought_before_it_is_approved(cairn, site, tmp_path):
    decide(
        site.folder,
        [Decision.made(event="DECLINE", person="Bo", plan_fingerprint=site.plan.fingerprint)],
    )
    code, _, err = cairn("plans", "approve", site.plan.fingerprint[:8], "--by", "Ada")
    assert code == 6
    assert "the text of this plan is not here" in err
    assert cairn("plans", "approve", write_plan(tmp_path, site.plan), "--by", "Ada")[0] == 0


def test_options_before_the_word_are_not_passed_over(cairn, site, make_site):
    other = make_site("south")
    fingerprint = waits(site)
    code, _, err = cairn(
        "plans", "--site-dir", other.folder.root, "approve", fingerprint[:8], "--by", "Ada"
    )
    assert code == 2
    assert "options come last" in err
    assert decisions(site) == []


# Looking.


def test_the_list_says_what_waits_since_when_for_which_run_and_what_to_type(cairn, site):
    code, out, _ = cairn("plans")
    assert code == 0
    assert "no plan was asked for" in out
    fingerprint = waits(site)
    declined = site.with_plan(seed=9)
    decide(
        site.folder,
        [Decision.made(event="DECLINE", person="Bo", plan_fingerprint=declined.fingerprint)],
    )
    out = cairn("plans")[1]
    assert f"cairn-site plans approve {fingerprint[:12]}" in out
    for word in ("WAITS", "2026-03-04T12:00:00Z", "run-1", "declined", "Bo"):
        assert word in out
    told = json.loads(cairn("plans", "--json")[1])
    assert told["waiting"] == 1
    assert [(plan["state"], plan["person"]) for plan in told["plans"]] == [
        ("waiting", None),
        ("declined", "Bo"),
    ]


def test_a_waiting_plan_is_shown_in_words_with_its_bounds_and_its_dry_run(cairn, site, tmp_path):
    fingerprint = waits(site)
    page = tmp_path / "page.html"
    code, out, _ = cairn("plans", "show", fingerprint[:8], "-o", page)
    assert code == 0
    assert "Waits since 2026-03-04T12:00:00Z, for run run-1" in out
    assert "4 rounds of training, together of 40 updates on 16 transitions" in " ".join(out.split())
    assert "privacy.least_tier" in out
    assert "ModelUpdate" in out
    assert "Nothing was sent or recorded" in out
    assert f"cairn-site plans approve {fingerprint[:12]}" in out
    assert "What a round of small would let out" in page.read_text()
    assert not site.folder.ledger.exists()


def test_the_dry_run_of_a_waiting_plan_is_that_of_the_file(cairn, site, tmp_path):
    fingerprint = waits(site)
    told = json.loads(cairn("plans", "show", fingerprint[:8], "--json")[1])
    alone = json.loads(cairn("dry-run", write_plan(tmp_path, site.plan), "--json")[1])
    arrays = [
        [found["arrays"] for found in each["findings"]] for each in (told["rehearsal"], alone)
    ]
    assert arrays[0] == arrays[1]
    assert told["rehearsal"]["plan_fingerprint"] == alone["plan_fingerprint"] == fingerprint
    assert told["state"] == "waiting"
    assert told["refusal"] is None
    assert told["fields"]["learner.batch"] == 16
    assert {bound["policy"] for bound in told["bounds"]} >= {"plans.kinds", "bytes.per_run"}


def test_what_leaves_is_never_larger_than_its_words_say(cairn, site):
    told = json.loads(cairn("plans", "show", waits(site)[:8], "--json")[1])
    most = {each["record"]: each["most_bytes"] for each in told["leaves"]}
    found = [(each["record_type"], each["bytes"]) for each in told["rehearsal"]["findings"]]
    assert {name for name, _ in found} == set(most)
    assert all(size <= most[name] for name, size in found)
    update = dict(found)["ModelUpdate"]
    assert most["ModelUpdate"] <= 1.1 * update, "and the words do not exaggerate either"


def test_without_rehearsal_no_image_is_opened(cairn, site):
    for image in (site.folder.root.parent / "images").iterdir():
        image.unlink()
    code, out, _ = cairn("plans", "show", waits(site)[:8], "--no-rehearsal")
    assert code == 0
    assert "What leaves it" in out
    assert "Nothing was sent" not in out


def test_a_plan_beyond_the_policy_is_shown_with_what_it_breaks_and_exit_3(cairn, site):
    fingerprint = waits(site, site.with_plan(limits={"privacy_tier": 0}))
    code, out, _ = cairn("plans", "show", fingerprint[:8])
    assert code == 3
    assert "BEYOND" in out
    assert "limits.privacy_tier must be at least 1" in out
    assert "can look up in it whatever they think of" in " ".join(out.split())
    told = json.loads(cairn("plans", "show", fingerprint[:8], "--json")[1])
    assert told["refusal"]["field"] == "limits.privacy_tier"
    assert told["rehearsal"] is None


def facts(cairn, *words):
    told = json.loads(cairn("check", "--json", *words)[1])
    return {fact["name"]: fact for fact in told["facts"]}


def test_status_and_check_say_what_waits_and_what_to_type(cairn, site, tmp_path):
    assert facts(cairn)["plans"]["level"] == "ok"
    assert json.loads(cairn("status", "--json")[1])["plans"] == []
    fingerprint = waits(site)
    fact = facts(cairn)["plans"]
    assert fact["level"] == "warning"
    assert f"cairn-site plans approve {fingerprint[:12]}" in fact["fix"]
    (plan,) = json.loads(cairn("status", "--json")[1])["plans"]
    assert (plan["fingerprint"], plan["run"]) == (fingerprint, "run-1")
    assert f"cairn-site plans show {fingerprint[:12]}" in cairn("status")[1]
    path = write_plan(tmp_path, site.plan)
    assert facts(cairn, "--plan", path)["approval"]["level"] == "warning"
    cairn("plans", "approve", fingerprint[:12], "--by", "Ada")
    assert facts(cairn)["plans"]["level"] == "ok"
    assert facts(cairn, "--plan", path)["approval"]["says"].startswith("by Ada, ")
    assert json.loads(cairn("status", "--json")[1])["plans"] == []


def test_where_the_policy_asks_nobody_nothing_waits(cairn, site):
    waits(site)
    loosen(site.folder)
    assert read_policy(site.folder.policy_file).plans.approval == "bounded"
    assert json.loads(cairn("plans", "--json")[1])["waiting"] == 0
    assert "without asking anybody" in facts(cairn)["plans"]["says"]


def test_the_text_of_a_plan_that_was_served_is_found_in_the_archive(cairn, site):
    settings = site.folder.settings()
    key = read_signing_key(site.folder.ledger_key)
    with Ledger.open(
        site.folder.ledger, ledger_origin(settings.site), key, lambda: datetime.now(UTC)
    ) as ledger:
        ledger.spool(site.plan.canonical())
        ledger.append("APPROVE", plan_fingerprint=site.plan.fingerprint, person="Ada")
    (known,) = json.loads(cairn("plans", "--json")[1])["plans"]
    assert (known["plan"], known["state"]) == ("small", "approved")
    assert cairn("plans", "show", site.plan.fingerprint[:8], "--no-rehearsal")[0] == 0


def test_a_person_decides_also_where_neither_torch_nor_the_compiler_is(site, tmp_path):
    program = """
import sys
sys.modules.update({"numba": None, "llvmlite": None, "torch": None})  # every import fails
from common.cli import run
from site_client.cli import cli
run(cli, sys.argv[1:])
"""
    fingerprint = waits(site)
    root = ("--site-dir", str(site.folder.root))
    for words in (
        ("plans",),
        ("plans", "show", fingerprint[:8], "--no-rehearsal"),
        ("plans", "approve", fingerprint[:8], "--by", "Ada"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words, *root],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert decisions(site) == [("APPROVE", fingerprint, "Ada")]
