"""A worker killed with SIGKILL answers in the end as if nothing had been."""

import subprocess
import threading
import time

import numpy as np
import pytest

from common.ledger.layout import Layout
from common.ledger.records import parse_record
from site_client.supervise import commands
from site_client.worker.loop import Worker


def records(site):
    log = Layout(site.folder.ledger).log.read_bytes()
    return [parse_record(line) for line in log.split(b"\n")[:-1]]


def work_off(site):
    with Worker(site.folder, threading.Event()) as worker:
        while worker.turn():
            pass


def run_until(site, line, pause_s):
    """Start a worker, wait until it says ``line``, and kill it a little later."""
    process = subprocess.Popen(
        commands(site.folder.root)["worker"], stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        for said in process.stderr:
            if line in said:
                break
        else:
            pytest.fail(f"the worker ended without saying {line!r}")
        time.sleep(pause_s)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("line", "pause_s"),
    [
        pytest.param("reading images: 3 of 3", 0.0, marks=pytest.mark.slow),
        ("training: 12 of 40", 0.0),
        pytest.param("training: 40 of 40", 0.02, marks=pytest.mark.slow),
    ],
)
def test_a_killed_worker_gives_the_update_of_an_unkilled_one(make_site, tmp_path, line, pause_s):
    straight, killed = (make_site(root=tmp_path / name) for name in ("straight", "killed"))
    learner = straight.plan.learner.model_dump(mode="json") | {"updates": 160}
    plan = straight.with_plan(learner=learner)
    digests = [site.put(site.order(1, "train", plan=plan)) for site in (straight, killed)]
    work_off(straight)
    run_until(killed, line, pause_s)
    work_off(killed)
    first = straight.reply(digests[0])["ModelUpdate"].arrays
    second = killed.reply(digests[1])["ModelUpdate"].arrays
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert [record.event for record in records(killed)] == ["GENESIS", "SEND", "SEND", "SEND"]
    assert killed.spool.orders() == []


@pytest.mark.slow
@pytest.mark.parametrize("line", ["reading images: 3 of 3", "training: 12 of 40"])
def test_a_worker_killed_in_a_later_round_goes_on_from_the_chain_on_its_disk(
    make_site, tmp_path, line
):
    """What came of the rounds before is kept before a round is trained, and needs no other sum."""
    straight, killed = (make_site(root=tmp_path / name) for name in ("straight", "killed"))
    learner = straight.plan.learner.model_dump(mode="json") | {"updates": 160}
    plan = straight.with_plan(learner=learner)
    for site in (straight, killed):
        site.put(site.order(1, "train", plan=plan))
        work_off(site)
    replies = []
    for site in (straight, killed):
        sums = site.past(plan).until(3)
        second = {1: sums[1]}
        site.put(site.order(2, "train", plan=plan, sums=second))
        if site is killed:
            run_until(site, line, 0.0)
        work_off(site)
        third = site.put(site.order(3, "train", plan=plan, sums={2: sums[2]}))
        work_off(site)
        replies.append(site.reply(third))
    first, second = (reply["ModelUpdate"].arrays for reply in replies)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    reports = [reply["RoundReport"].record for reply in replies]
    assert reports[0].weights_sha256 == reports[1].weights_sha256
    assert [record.event for record in records(killed)] == ["GENESIS", *["SEND"] * 9]
