"""``cairn-site check --data``, and why an order failed for a site's data, as people see it."""

from __future__ import annotations

import json
import threading
import time

import pytest
from click.testing import CliRunner

from common.wire.codes import ReplyCode
from site_client import checks
from site_client.cli import cli
from site_client.imaging import opening
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.trouble import MOST_PROBLEMS, note_trouble, read_trouble
from site_client.worker.loop import Worker
from tests.conftest import write_case


def call(site, *words):
    return CliRunner().invoke(cli, [*map(str, words), "--site-dir", str(site.folder.root)])


def shorten(site, name="case-1", share=0.02):
    path = site.folder.data() / f"{name}.nii.gz"
    data = path.read_bytes()
    path.write_bytes(data[: max(20, int(len(data) * share))])
    return data


def work(site, order):
    digest = site.put(order)
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    return site.reply(digest)


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('name = "small"\nseed = 5\n[task]\nlandmarks = ["A", "C"]\nspacing_mm = 1.0\n')
    return path


def test_every_image_is_opened_and_each_fault_named(site):
    write_case(site.folder.data(), "case-3", 3)
    shorten(site)
    (site.folder.data() / "case-2.mrk.json").unlink()
    done = call(site, "check", "--data")
    assert "BAD every image: 4 scans looked at" in done.stdout
    assert "case-1: cut short: the image file is cut short" in done.stdout
    assert "case-2: unlabelled" in done.stdout
    assert "Taken: 4 *.nii.gz" in done.stdout
    assert "opening every image" in done.stderr
    assert done.exit_code != 0


def test_a_sound_folder_is_ok_and_json_says_every_scan(site):
    told = json.loads(call(site, "check", "--data", "--json").stdout)
    assert told["facts"][-1]["name"] == "every image"
    assert told["facts"][-1]["level"] == "ok"
    scans = told["data"]["scans"]
    assert [scan["name"] for scan in scans] == ["case-0", "case-1", "case-2"]
    assert all(scan["opened"] and scan["faults"] == [] for scan in scans)
    assert set(scans[0]["from_mean_mm"]) == {"A", "B"}
    assert told["data"]["takes"] == {"*.nii.gz": 3}


def test_a_plan_beside_it_names_what_the_scans_lack(site, plan_file):
    told = json.loads(call(site, "check", "--data", "--json", "--plan", plan_file).stdout)
    faults = [fault for scan in told["data"]["scans"] for fault in scan["faults"]]
    assert [fault["kind"] for fault in faults] == ["names"] * 3
    assert "the plan asks for: 'C'" in faults[0]["says"]


def test_the_page_is_written_where_it_was_asked_for(site, tmp_path):
    page = tmp_path / "data.html"
    done = call(site, "check", "--data", "-o", page)
    assert f"Pictures: {page}. It shows patients" in done.stdout
    assert page.read_text(encoding="utf-8").count("<figure>") == 9
    assert call(site, "check", "-o", page).exit_code != 0


def test_without_data_no_image_is_opened(site, monkeypatch):
    def refuse(*_):
        raise AssertionError("opened")

    monkeypatch.setattr(opening, "open_scan", refuse)
    monkeypatch.setattr("site_client.imaging.volumes.read_volume", refuse)
    shorten(site)
    began = time.monotonic()
    facts = {fact.name: fact for fact in checks.check_site(site.folder)}
    assert facts["images"].level == "ok"
    assert time.monotonic() - began < 10


def test_unlabelled_images_are_counted_without_opening_any(site):
    (site.folder.data() / "case-2.mrk.json").unlink()
    fact = {f.name: f for f in checks.check_site(site.folder)}["images"]
    assert "2 scans" in fact.says
    assert "1 without landmarks are left out" in fact.says


def test_unlabelled_images_and_lacking_landmarks_are_told_together(site):
    write_case(site.folder.data(), "case-3", 3)
    (site.folder.data() / "case-2.mrk.json").unlink()
    path = site.folder.data() / "case-1.mrk.json"
    write_landmarks(path, {"A": read_landmarks(path)["A"]})
    fact = {f.name: f for f in checks.check_site(site.folder)}["images"]
    assert "case-1 lacks 1" in fact.says
    assert "left out (case-2)" in fact.says


def test_a_folder_that_is_gone_is_a_fault_and_no_traceback(site):
    for path in site.folder.data().iterdir():
        path.unlink()
    told = json.loads(call(site, "check", "--data", "--json").stdout)
    assert told["data"]["faults"][0]["kind"] == "no images"


def test_slides_are_looked_at_where_the_policy_serves_pixels(site):
    policy = site.folder.policy_file
    text = policy.read_text()
    policy.write_text(text.replace('kinds = ["training", "no-op"]', 'kinds = ["pixels"]'))
    for path in site.folder.data().iterdir():
        path.unlink()
    (site.folder.data() / "slide.npy").write_bytes(b"\x93NUMPY")
    told = json.loads(call(site, "check", "--data", "--json").stdout)
    assert told["data"]["slides"][0]["faults"][0]["kind"] == "unreadable"


# Why an order failed.


def test_a_shortened_image_fails_a_round_as_a_number_and_the_site_is_told_which(site):
    whole = shorten(site)
    reply = work(site, site.order(1, "train"))
    assert reply["RoundReport"].record.code is ReplyCode.BAD_DATA
    trouble = read_trouble(site.folder)
    assert (trouble.run, trouble.round, trouble.kind, trouble.count) == ("run-1", 1, "training", 1)
    assert "case-1.nii.gz" in trouble.problems[0].says
    text = call(site, "status").stdout
    assert "DATA      run-1, round 1 (train) failed here" in text
    assert "the image file is cut short" in text
    assert json.loads(call(site, "status", "--json").stdout)["trouble"]["count"] == 1
    fact = {f.name: f for f in checks.check_site(site.folder)}["data"]
    assert fact.level == "warning"
    assert "case-1.nii.gz" in fact.says
    (site.folder.data() / "case-1.nii.gz").write_bytes(whole)
    assert work(site, site.order(2, "train"))["RoundReport"].record.code is ReplyCode.OK
    assert read_trouble(site.folder) is None
    assert "DATA" not in call(site, "status").stdout


def test_a_run_that_opens_no_image_does_not_clear_the_note(site):
    shorten(site)
    work(site, site.order(1, "train"))
    plan = site.with_plan(kind="no-op")
    reply = work(site, site.order(0, "begin", run="run-2", plan=plan))
    assert reply["RoundReport"].record.code is ReplyCode.OK
    assert read_trouble(site.folder) is not None


def test_every_unusable_image_stands_in_the_note(site):
    shorten(site, "case-0")
    shorten(site, "case-2")
    work(site, site.order(1, "train"))
    trouble = read_trouble(site.folder)
    assert trouble.count == 2
    assert ["case-0" in trouble.problems[0].where, "case-2" in trouble.problems[1].where] == [
        True
    ] * 2


def test_a_note_that_cannot_be_written_does_not_keep_the_number_from_leaving(site, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("site_client.trouble.write_atomically", full)
    shorten(site)
    reply = work(site, site.order(1, "train"))
    assert reply["RoundReport"].record.code is ReplyCode.BAD_DATA


def test_too_few_labelled_images_for_the_policy_fail_before_any_is_trained_on(site):
    policy = site.folder.policy_file
    lines = policy.read_text().splitlines()
    policy.write_text("\n".join("images = 3" if t.startswith("images =") else t for t in lines))
    (site.folder.data() / "case-2.mrk.json").unlink()
    reply = work(site, site.order(1, "train"))
    assert reply["RoundReport"].record.code is ReplyCode.BAD_DATA
    assert "at least 3 images with landmarks" in read_trouble(site.folder).problems[0].says


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"problems": 3}', '{"problems": [{}]}'])
def test_a_broken_note_is_no_note(site, text):
    site.folder.trouble.write_text(text)
    assert read_trouble(site.folder) is None


def test_a_note_is_bounded_and_takes_any_name(site):
    from datetime import UTC, datetime

    from common.errors import InputDataError
    from site_client.imaging.faults import UnusableCasesError

    each = [InputDataError("x" * 5000, field=f"\udcff{n}") for n in range(MOST_PROBLEMS + 9)]
    error = UnusableCasesError(site.folder.data(), each)
    note_trouble(site.folder, error, ("run-1", 1, "train", "p", "training"), datetime.now(UTC))
    trouble = read_trouble(site.folder)
    assert trouble.count == MOST_PROBLEMS + 9
    assert len(trouble.problems) == MOST_PROBLEMS
    assert site.folder.trouble.stat().st_size < 1_000_000
