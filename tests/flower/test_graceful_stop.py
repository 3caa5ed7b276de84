"""A site asked to stop in the middle of training: the round is left cleanly and answered once."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.synthesis import Grid, RawImage, write_raw
from site_client.supervise import GRACE_S

pytestmark = [pytest.mark.flower, pytest.mark.slow, pytest.mark.timeout(3600)]

PLAN = """
name = "stopped"
kind = "training"
seed = 1
[task]
landmarks = ["AC", "PC"]
spacing_mm = 2.0
roi = 9
[network]
width = 4
[learner]
updates = 800
searches = 4
warmup = 320
[experience]
rows = 3
columns = 64
[rounds]
training = 1
quorum = 1
deadline_s = 600
"""
LIMIT_S = 900.0


@pytest.fixture
def federation(real_class, tmp_path: Path) -> Iterator[object]:
    """One site with three made-up scans, joined and up."""
    made = real_class(tmp_path)
    scans = tmp_path / "scans"
    scans.mkdir()
    rng = np.random.default_rng(1)
    grid = Grid((20, 20, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), np.eye(3))
    points = {"AC": np.array([20.0, 20.0, 20.0]), "PC": np.array([10.0, 20.0, 20.0])}
    for number in range(3):
        voxels = rng.integers(0, 255, (20, 20, 20)).astype(np.float32)
        write_raw(scans / f"case{number}.nii.gz", RawImage(voxels, grid))
        write_landmarks(scans / f"case{number}.mrk.json", points, "LPS")
    (tmp_path / "plan.toml").write_text(PLAN)
    try:
        made.init()
        made.start_aggregator(LIMIT_S)
        made.join("site-a", "--new-federation-key", data=scans)
        # A site alone: nobody else to confirm, no other summand.
        alone = {"least_known": "0", "least_in_sum": "0", "quorum": "[1, 1000]"}
        made.allow("site-a", approval='"bounded"', **alone)
        yield made
    finally:
        made.stop()


def start(federation, number: int) -> str:
    name = f"up-{number}"
    federation.start(name, "cairn-site", "up", "--site-dir", "site-a")
    federation.wait_for(name, "online", LIMIT_S)
    return name


def test_a_round_in_hand_is_left_at_the_stop_and_answered_once_after_the_next_start(federation):
    site, first = federation.root / "site-a", start(federation, 1)
    federation.run("cairn-aggregator", "round", "start", "plan.toml", "--dir", "federation")
    federation.wait_for(first, "training: ", LIMIT_S)
    began = time.monotonic()
    federation.processes[first].send_signal(signal.SIGTERM)
    assert federation.processes[first].wait(GRACE_S + 10) == 0, federation.log(first)
    said = federation.log(first)
    assert time.monotonic() - began < GRACE_S + 5
    assert "was killed" not in said, said
    assert "is left for the next start" in said
    assert "Traceback" not in said
    assert len(list((site / "spool/inbox").glob("*.order"))) == 1
    assert sent(site, 1) == [], "nothing of the round has left"
    assert "chain intact" in audit(federation)

    start(federation, 2)
    run = federation.newest_run()
    finished = lambda: federation.events(run)[-1]["event"] == "run_finished"  # noqa: E731
    federation.wait(finished, "verdict", LIMIT_S)
    events = federation.events(run)
    assert events[-1]["verdict"] == "COMPLETED", events[-1]
    replies = [e for e in events if e["event"] == "site_replied" and e["round"] == 1]
    assert [(e["site"], e["accepted"]) for e in replies] == [("site-a", True)]
    assert sent(site, 1) == ["ModelUpdate", "RoundReport"]
    assert "chain intact" in audit(federation)
    assert list((site / "spool/inbox").glob("*.order")) == []


def sent(site: Path, round_: int) -> list[str]:
    """Types of the records that the ledger says left in a round, in order of name."""
    lines = (site / "worker/ledger/log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return sorted(
        r["record_type"] for r in records if r["event"] == "SEND" and r.get("round") == round_
    )


def audit(federation) -> str:
    """Return the records that hold, and the verdict; no witness has seen the end of a run yet."""
    return federation.run(
        *("cairn-audit", "show", "site-a/worker/ledger"),
        *("--key", "federation/sites/site-a/ledger.pub"),
        *("--witness", "federation/pki/witness.pub", "--journal", "site-a/courier/journal.jsonl"),
    )
