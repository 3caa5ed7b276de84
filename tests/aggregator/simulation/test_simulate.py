"""A federation of made-up sites: real doors and ledgers, figures that add up, nothing left."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from aggregator.cli import cli
from aggregator.rounds.events import SiteReplied, read_events
from aggregator.rounds.store import RunStore
from aggregator.simulation.hubs import AT_ONCE, Hubs, SitesWanted
from aggregator.simulation.simulate import Simulation, plan_for, simulate
from common.audit.cli import cli as audit
from common.cli import run
from common.errors import InputDataError, InternalError
from common.plan import parse_plan, read_plan
from common.simulation import Post, request_in, told_in
from common.sums.addition import MOST_SITES

PLAN = """
name = "planned"
kind = "training"
seed = 3
[task]
landmarks = ["AC", "PC"]
roi = 9
[network]
width = 4
[experience]
rows = 3
columns = 64
[learner]
updates = 40
searches = 4
batch = 16
warmup = 200
replay_capacity = 1000
episode_steps = 8
[rounds]
training = 1
quorum = 2
"""


PIXELS = {"kind": "pixels", "pixels": {"bands": ["a", "b", "c"], "components": 3}}


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def said(capfd, *words: str) -> tuple[int, dict]:
    """Exit code and JSON of a command line."""
    with pytest.raises(SystemExit) as ended:
        run(cli, ["simulate", *words, "--json"])
    return int(ended.value.code or 0), json.loads(capfd.readouterr().out)


def test_a_plan_is_carried_out_and_its_costs_add_up(plan_file, tmp_path, capfd):
    place = tmp_path / "place"
    place.mkdir()
    words = (str(plan_file), "--sites", "3", "--processes", "2", "--folder", str(place))
    code, told = said(capfd, *words)
    assert (code, told["verdict"], told["sites"], told["learner"]) == (0, "COMPLETED", 3, "none")
    assert [each["phase"] for each in told["phases"]] == ["begin", "train", "evaluate"]
    begin, train, evaluate = told["phases"]
    assert train["reply_bytes"] > 10 * begin["reply_bytes"], "updates and sketches come back"
    assert evaluate["order_bytes"] > 10 * begin["order_bytes"], "the sum goes out"
    for each in told["phases"]:
        assert each["sites"] == 3
        assert each["sites_s"] > 0
        assert 0 < each["aggregator_s"] <= each["seconds"] + 0.1
        assert each["peak_bytes"] <= told["aggregator_peak_bytes"]
    assert told["site_bytes"] > train["reply_bytes"] / 3, "what left lies in each ledger's archive"
    assert list(place.iterdir()) == []
    assert said(capfd, *words)[1]["model_sha256"] == told["model_sha256"], "the same seed"


def test_relays_in_between_change_what_comes_up_and_not_a_bit_of_the_model(
    plan_file, tmp_path, capfd
):
    words = (str(plan_file), "--sites", "5", "--processes", "2", "--folder", str(tmp_path))
    code, plain = said(capfd, *words)
    assert (code, plain["relays"], plain["relay_bytes"]) == (0, 0, 0)
    assert {each["up_bytes"] + each["down_bytes"] for each in plain["phases"]} == {0}
    code, told = said(capfd, *words, "--relays", "2")
    assert (code, told["verdict"], told["reason"], told["relays"]) == (0, "COMPLETED", "", 2)
    assert told["model_sha256"] == plain["model_sha256"]
    assert [each["sites"] for each in told["phases"]] == [5, 5, 5]
    for with_relays, without in zip(told["phases"], plain["phases"], strict=True):
        for name in ("order_bytes", "reply_bytes"):  # proofs differ by a few hashes
            assert with_relays[name] == pytest.approx(without[name], rel=0.05)
    train, evaluate = told["phases"][1:]
    assert 0 < train["up_bytes"] < train["reply_bytes"]
    assert 0 < evaluate["down_bytes"] < evaluate["order_bytes"], "the sum goes down once a relay"
    assert told["relay_bytes"] > train["reply_bytes"] / 2, "the archive lies at the relays"
    assert told["federation_bytes"] < plain["federation_bytes"]


def test_what_a_simulation_with_relays_says_on_a_terminal(plan_file, tmp_path):
    words = ["simulate", str(plan_file), "--sites", "2", "--relays", "2", "--folder"]
    told = CliRunner().invoke(cli, [*words, str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert "By 2 relays, in the aggregator's process:" in told.output


def test_ledgers_and_journal_of_a_simulation_are_real_and_can_be_kept(plan_file, tmp_path):
    wanted = Simulation(plan_for(read_plan(plan_file), "none", 2), 3, processes=2)
    most = 0

    def look(what: str, done: int, total: int) -> None:
        nonlocal most
        most = max(most, len(list((tmp_path / "post").iterdir())))
        assert (0 < done <= total, total) == (True, 3)

    outcome = simulate(wanted, tmp_path, look)
    assert outcome.verdict == "COMPLETED"
    assert 0 < most <= 2 * AT_ONCE * wanted.processes + 2, "messages do not pile up"
    store = RunStore(tmp_path / "federation" / "runs" / "simulated")
    replies = [e for _, e in read_events(store.journal) if isinstance(e, SiteReplied)]
    assert len(replies) == 3 * 4
    assert all(reply.accepted for reply in replies)
    for site in ("site-0001", "site-0003"):
        ledger, known = tmp_path / "sites" / site / "worker" / "ledger", tmp_path / "federation"
        words = ["--key", known / "sites" / site / "ledger.pub"]
        words += ["--witness", known / "pki" / "witness.pub"]
        words += ["--checkpoint", known / "sites" / site / "checkpoint.note"]
        verified = CliRunner().invoke(audit, ["verify", str(ledger), *map(str, words)])
        assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize("relays", [-1, 4])
def test_more_relays_than_sites_are_refused_before_anything_is_made(plan_file, tmp_path, relays):
    wanted = Simulation(plan_for(read_plan(plan_file), "none", None), 3, relays=relays)
    place = tmp_path / "place"
    with pytest.raises(InputDataError, match=r"--relays must be 0 to 3 \(--sites\)"):
        simulate(wanted, place, lambda *_: None)
    assert not place.exists()


@pytest.mark.parametrize(
    ("changes", "sites", "field"),
    [
        ({}, 1, "--sites"),
        ({}, MOST_SITES + 1, "--sites"),
        (
            PIXELS,
            3,
            "kind",
        ),
        ({"start": "0" * 64}, 3, "start"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_made(
    tmp_path, changes, sites, field
):
    words = {"name": "p", "seed": 1}
    if changes.get("kind") != "pixels":
        words |= {"task": {"landmarks": ["AC"], "roi": 9}, "network": {"width": 4}}
    plan = parse_plan(words | changes)

    def begin() -> None:
        wanted = Simulation(plan_for(plan, "none", None), sites)
        simulate(wanted, tmp_path, lambda *_: None)

    with pytest.raises(InputDataError) as refused:
        begin()
    assert refused.value.field == field
    assert refused.value.advice or refused.value.expected
    assert list(tmp_path.iterdir()) == []


def test_a_plan_beyond_the_usual_policy_fails_as_it_would_and_says_so(plan_file, tmp_path, capfd):
    plan_file.write_text(PLAN.replace("width = 4", "width = 48"))
    code, told = said(capfd, str(plan_file), "--sites", "2", "--folder", str(tmp_path))
    assert (code, told["verdict"]) == (5, "FAILED")
    assert "policy" in told["reason"]


def test_a_process_of_sites_that_ends_is_named_with_its_last_words(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"no plan")
    wanted = SitesWanted(tmp_path / "plan.json", tmp_path, tmp_path, "none", 4, 1)
    with Hubs(wanted, 1, tmp_path / "log") as hubs:
        hubs.ask("join", [(0, "site-0001")])
        assert [question.site for question in hubs.ready()] == ["site-0001"]
        with pytest.raises(InternalError, match=r"ended by itself.*exit status 7\. .+"):
            hubs.told()


@pytest.mark.parametrize("line", [b"", b"{}", b'{"do":"leave","site":"a"}', b"\xff", b"[" * 999])
def test_a_line_that_is_no_message_is_refused(line):
    for read in (request_in, told_in):
        with pytest.raises(InternalError, match="cannot be read"):
            read(line)


def test_every_message_has_a_place_of_its_own(tmp_path):
    post = Post(tmp_path)
    places = (post.invite, post.request, post.order, post.reply)
    assert len({place(site) for place in places for site in ("a", "b")}) == 8


@pytest.mark.slow
def test_agents_learn_on_images_that_are_made_up(plan_file, tmp_path, capfd):
    words = (str(plan_file), "--sites", "2", "--learner", "agent", "--folder", str(tmp_path))
    code, told = said(capfd, *words)
    assert (code, told["verdict"], told["learner"]) == (0, "COMPLETED", "agent")
    assert said(capfd, *words, "--seed", "2")[1]["model_sha256"] != told["model_sha256"]
