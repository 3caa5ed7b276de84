"""Held-out cases are evaluated on and never trained on; which they are, the site decides."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner

from common.wire.codes import ReplyCode
from site_client.agent.federated import evaluate_weights
from site_client.cli import cli
from site_client.commands.look import _tell
from site_client.heldout.memory import begin_memory, read_memory
from site_client.heldout.parts import look_at_parts
from site_client.status import read_status
from site_client.worker.loop import Worker
from site_client.worker.training import _EVALUATION_SEED
from tests.conftest import write_case
from tests.tasks import site_cases

IMAGES = 6


@pytest.fixture
def site(make_site):
    return make_site(images=IMAGES)


def set_policy(folder, **changes):
    """Edit ``[held_out]`` as the site's people would."""
    head, section = folder.policy_file.read_text().split("\n[held_out]\n")
    for name, value in changes.items():
        section = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", section, count=1)
    folder.policy_file.write_text(f"{head}\n[held_out]\n{section}")


def train(site, worker, run="run-1", rounds=1):
    """The answers to the first orders of a run, by round."""
    answers = []
    for round_ in range(rounds + 1):
        digest = site.put(site.order(round_, "train" if round_ else "begin", run))
        assert worker.turn()
        answers.append(site.reply(digest))
    return answers


def report_of(reply):
    record = reply["RoundReport"].record
    assert record.code is ReplyCode.OK
    return record


def test_the_learner_gets_the_training_part_and_nothing_else(site):
    with Worker(site.folder, threading.Event()) as worker:
        begin, trained = train(site, worker)
        study = worker._answering._studies._study
    held_out = look_at_parts(site.folder).held_out
    assert len(held_out) == 2
    everybody = {f"case-{n}" for n in range(IMAGES)}
    assert set(study._held_out.names) == held_out
    assert set(study._cases.names) == everybody - held_out
    assert len(study._learner._task) == len(study._cases) == 4
    for reply in (begin, trained):
        assert (report_of(reply).images, report_of(reply).held_out) == (4, 2)
    assert trained["ModelUpdate"].record.images == 4


def test_errors_of_both_parts_are_told_and_held_out_first(site):
    with Worker(site.folder, threading.Event()) as worker:
        begin, trained = train(site, worker)
    assert report_of(begin).errors == ()
    told = [(e.part, e.label, e.searches) for e in report_of(trained).errors]
    starts = site.plan.evaluation.starts
    assert told == [
        ("held-out", "A", 2 * starts),
        ("held-out", "B", 2 * starts),
        ("training", "A", 4 * starts),
        ("training", "B", 4 * starts),
    ]


def test_training_is_bit_for_bit_that_of_a_site_without_the_held_out_images(make_site):
    """Holding out changes what is trained on, and nothing of how."""
    whole, rest = make_site("north", images=IMAGES), make_site("north2", images=0)
    held_out = look_at_parts(whole.folder).held_out
    for number in range(IMAGES):
        if f"case-{number}" not in held_out:
            write_case(rest.folder.data(), f"case-{number}", number)
    set_policy(rest.folder, share="0.0")
    settings = rest.folder.settings_file
    settings.write_text(settings.read_text().replace('"north2"', '"north"'))
    deltas = []
    for each in (whole, rest):
        with Worker(each.folder, threading.Event()) as worker:
            deltas.append(train(each, worker)[1])
    assert report_of(deltas[1]).held_out == 0
    for name, array in deltas[0]["ModelUpdate"].arrays.items():
        np.testing.assert_array_equal(array, deltas[1]["ModelUpdate"].arrays[name])
    table = [reply["SketchTable"].arrays["table"] for reply in deltas]
    np.testing.assert_array_equal(*table)


def test_the_prior_is_the_mean_of_the_training_part(site):
    set_policy(site.folder, subjects='["case-4", "case-5"]')
    with Worker(site.folder, threading.Event()) as worker:
        (_, trained) = train(site, worker)
        study = worker._answering._studies._study
    prior = study._cases.prior
    both = (*study._cases.cases.volumes, *study._held_out.cases.volumes)
    assert not np.allclose(prior, site_cases(site.plan, both).prior)
    evaluations = study._evaluate(study._learner.weights())
    again = evaluate_weights(
        study._learner.weights(),
        site.plan,
        study._held_out.task,
        study._subject.seed ^ _EVALUATION_SEED,
        prior,
        study._cases.labels,
    )
    for name, summary in evaluations["held-out"].posed.items():
        assert summary.prior == again.posed[name].prior
    assert all(error.prior_milli > 0 for error in report_of(trained).errors)


def test_the_choice_outlives_restarts_and_runs_and_new_images(site):
    with Worker(site.folder, threading.Event()) as worker:
        train(site, worker)
    held_out = look_at_parts(site.folder).held_out
    memory = read_memory(site.folder.held_out)
    assert not memory.empty
    for number in range(IMAGES, IMAGES + 4):
        write_case(site.folder.data(), f"case-{number}", number)
    with Worker(site.folder, threading.Event()) as worker:
        train(site, worker, "run-2")
    now = look_at_parts(site.folder)
    old = {f"case-{n}" for n in range(IMAGES)}
    assert now.held_out & old == held_out
    assert memory.training < read_memory(site.folder.held_out).training | memory.held_out


def test_a_share_raised_later_takes_nobody_out_of_training(site):
    set_policy(site.folder, share="0.0")
    with Worker(site.folder, threading.Event()) as worker:
        _, trained = train(site, worker)
    assert (report_of(trained).images, report_of(trained).held_out) == (IMAGES, 0)
    set_policy(site.folder, share="0.5")
    with Worker(site.folder, threading.Event()) as worker:
        _, trained = train(site, worker, "run-2")
    assert (report_of(trained).images, report_of(trained).held_out) == (IMAGES, 0)
    assert {error.part for error in report_of(trained).errors} == {"training"}


def test_listed_subjects_are_held_out(site):
    set_policy(site.folder, subjects='["case-1", "case-4"]')
    with Worker(site.folder, threading.Event()) as worker:
        train(site, worker)
        study = worker._answering._studies._study
        assert set(study._held_out.names) == {"case-1", "case-4"}


def test_a_single_held_out_image_is_not_trained_on_and_its_error_stays_here(site):
    set_policy(site.folder, subjects='["case-1"]')
    with Worker(site.folder, threading.Event()) as worker:
        _, trained = train(site, worker)
    record = report_of(trained)
    assert (record.images, record.held_out) == (IMAGES - 1, 0)
    assert {error.part for error in record.errors} == {"training"}


def test_a_plan_that_asks_for_more_images_gets_held_out_errors_only_of_as_many(make_site):
    site = make_site(images=IMAGES, limits={"min_images": 3})
    with Worker(site.folder, threading.Event()) as worker:
        _, trained = train(site, worker)
    assert (report_of(trained).images, report_of(trained).held_out) == (4, 0)


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_without_its_memory_a_site_trains_nothing_and_says_why(site, how):
    if how == "lost":
        site.folder.held_out.unlink()
    else:
        site.folder.held_out.write_text('{"v": 1')
    with Worker(site.folder, threading.Event()) as worker:
        digest = site.put(site.order())
        worker.turn()
    assert site.reply(digest)["RoundReport"].record.code is ReplyCode.BAD_DATA
    trouble = read_status(site.folder).trouble
    assert "memory of held-out subjects" in trouble.problems[0].says
    assert "--begin-anew" in trouble.problems[0].fix
    assert how == "damaged" or not site.folder.held_out.exists()


def test_nobody_is_chosen_while_an_image_cannot_be_read(site):
    (site.folder.data() / "case-0.nii.gz").write_bytes(b"not an image")
    with Worker(site.folder, threading.Event()) as worker:
        site.put(site.order())
        worker.turn()
    assert read_memory(site.folder.held_out).empty


def call(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_check_says_in_a_line_how_many_are_held_out_and_where_it_is_set(site):
    told = json.loads(call("check", "--json", "--site-dir", site.folder.root).stdout)
    (fact,) = [fact for fact in told["facts"] if fact["name"] == "held out"]
    says = "2 of 6 subjects (2 of 6 images): policy.toml, [held_out] share = 0.2"
    assert fact == {"name": "held out", "level": "ok", "says": says, "fix": ""}
    assert read_memory(site.folder.held_out).empty, "check changes nothing"


def test_check_says_that_the_memory_is_damaged_and_what_to_do(site):
    site.folder.held_out.write_text("{}")
    told = json.loads(call("check", "--json", "--site-dir", site.folder.root).stdout)
    (fact,) = [fact for fact in told["facts"] if fact["name"] == "held out"]
    assert fact["level"] == "bad"
    assert "backup" in fact["fix"]


def test_check_data_marks_the_held_out_scans_in_json_and_on_the_page(site, tmp_path):
    page = tmp_path / "data.html"
    root = site.folder.root
    told = json.loads(call("check", "--data", "-o", page, "--json", "--site-dir", root).stdout)
    marked = {scan["name"] for scan in told["data"]["scans"] if scan["held_out"]}
    assert marked == look_at_parts(site.folder).held_out
    text = page.read_text()
    assert text.count(">held out</b>") == 2
    assert "2 scans are held out of training" in text


def test_a_rehearsal_says_who_is_held_out_and_remembers_nothing(site, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(tomli_w.dumps(json.loads(site.plan.canonical())))
    root = site.folder.root
    done = call("dry-run", plan, "--no-attacks", "--json", "--site-dir", root)
    told = json.loads(done.stdout)
    assert told["held_out"] == look_at_parts(site.folder).says
    trained = [f for f in told["findings"] if f["record_type"] == "RoundReport"][-1]
    assert {error["part"] for error in trained["header"]["errors"]} == {"held-out", "training"}
    assert read_memory(site.folder.held_out).empty
    assert (
        "Held out of training: 2 of 6"
        in call("dry-run", plan, "--no-attacks", "--site-dir", root).stdout
    )


def test_status_tells_who_is_held_out_and_the_last_errors_of_both_parts(site, capsys):
    assert read_status(site.folder).errors is None
    with Worker(site.folder, threading.Event()) as worker:
        _, trained = train(site, worker)
    state = read_status(site.folder)
    told = json.loads(call("status", "--json", "--site-dir", site.folder.root).stdout)
    assert told["held_out"]["held_out_subjects"] == 2
    assert (told["errors"]["run"], told["errors"]["round"]) == ("run-1", 1)
    for part, shown in told["errors"]["parts"].items():
        own = [error for error in report_of(trained).errors if error.part == part]
        mean = np.average([e.mean_milli for e in own], weights=[e.searches for e in own])
        assert shown["mean"] == pytest.approx(mean / 1000, abs=1e-3)
        assert shown["searches"] == sum(e.searches for e in own)
    _tell(state)
    lines = capsys.readouterr().out.splitlines()
    (errors,) = [line for line in lines if line.startswith("errors ")]
    assert errors.index("held out") < errors.index("training")
    assert any(line.startswith("held out  2 of 6 subjects") for line in lines)


def test_the_command_names_the_held_out_images_and_begins_anew_only_when_told(site):
    root = site.folder.root
    told = json.loads(call("held-out", "--json", "--site-dir", root).stdout)
    assert set(told["names"]) == look_at_parts(site.folder).held_out
    before = site.folder.held_out.read_bytes()
    refused = call("held-out", "--begin-anew", "--site-dir", root)
    assert refused.exit_code == 2
    assert site.folder.held_out.read_bytes() == before
    site.folder.held_out.unlink()
    assert call("held-out", "--site-dir", root).exit_code != 0
    done = call("held-out", "--begin-anew", "--yes", "--site-dir", root)
    assert done.exit_code == 0, done.output
    assert "2 of 6 subjects" in done.output


def test_a_memory_begun_anew_may_choose_others(site):
    chosen = set()
    for _ in range(12):
        begin_memory(site.folder.held_out)
        chosen.add(look_at_parts(site.folder).held_out)
    assert len(chosen) > 1
