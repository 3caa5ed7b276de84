"""A coordinator reads what the sites' people will be asked to approve."""

from __future__ import annotations

import json

import pytest

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.cli import cli
from common.cli import run
from common.plan import read_plan
from common.words import in_words

PLAN = 'name = "p"\nseed = 1\nkind = "no-op"\n[task]\nlandmarks = ["AC"]\n'
OPEN = PLAN + "[limits]\nprivacy_tier = 0\n"
SPARSE = 'name = "p"\nseed = 1\n[task]\nlandmarks = ["AC"]\n[learner]\nupdates = 6\nsearches = 1\n'


@pytest.fixture
def cairn(capsys, monkeypatch):
    monkeypatch.delenv("CAIRN_FEDERATION", raising=False)
    monkeypatch.delenv("CAIRN_DESK", raising=False)

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(cli, [str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def federation(tmp_path):
    folder = FederationFolder(tmp_path / "fed")
    create_federation(
        folder, FederationSettings(name="x", address="127.0.0.1:9", port=1000), ["127.0.0.1"]
    )
    return folder


def test_a_plan_is_explained_without_a_federation_in_the_words_of_the_sites(
    cairn, plan_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cairn("plan", "explain", plan_file)
    plan = read_plan(plan_file)
    assert code == 0
    flat = " ".join(out.split())
    for passage in in_words(plan):
        for sentence in passage.sentences:
            assert " ".join(sentence.split()) in flat
    assert plan.fingerprint in out
    assert f"cairn-site plans approve {plan.fingerprint[:12]}" in out
    assert "quorum" in out
    assert "admitted" not in out
    assert "BEYOND" not in out


def test_a_federation_adds_how_many_sites_there_are(cairn, plan_file, federation):
    out = cairn("plan", "explain", plan_file, "--dir", federation.root)[1]
    assert "2 of 0 admitted sites" in out


def test_a_folder_that_is_no_federation_is_said_so_when_named(cairn, plan_file, tmp_path):
    assert cairn("plan", "explain", plan_file, "--dir", tmp_path)[0] == 6


def test_a_plan_beyond_the_usual_policy_says_which_field(cairn, plan_file):
    plan_file.write_text(OPEN)
    code, out, _ = cairn("plan", "explain", plan_file)
    assert code == 0
    assert "limits.privacy_tier must be at least 1, is 0" in out
    told = json.loads(cairn("plan", "explain", plan_file, "--json")[1])
    broken = [bound for bound in told["bounds"] if not bound["holds"]]
    assert [(bound["asked"], bound["policy"]) for bound in broken] == [
        ("limits.privacy_tier", "privacy.least_tier")
    ]


def test_scripts_get_the_same(cairn, plan_file):
    told = json.loads(cairn("plan", "explain", plan_file, "--json")[1])
    plan = read_plan(plan_file)
    assert told["fingerprint"] == plan.fingerprint
    assert told["words"] == [
        {"heading": p.heading, "sentences": list(p.sentences)} for p in in_words(plan)
    ]
    assert told["fields"]["task.landmarks"] == ["AC"]
    assert {fact["name"] for fact in told["facts"]} >= {"plan", "quorum", "a site sends"}


def test_a_plan_that_every_door_would_refuse_is_refused_here(cairn, plan_file):
    plan_file.write_text(SPARSE)
    code, _, err = cairn("plan", "explain", plan_file)
    assert code == 6
    assert "every site's door would refuse" in err


def test_what_is_no_plan_is_bad_input(cairn, plan_file, tmp_path):
    assert cairn("plan", "explain", tmp_path / "none.toml")[0] == 6
    plan_file.write_text('name = "p"')
    assert cairn("plan", "explain", plan_file)[0] == 6
