"""What a person sees who gives a command something wrong: one line, the field, an exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from common.cli import run
from common.crypto.identity import read_signing_key
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from site_client.cli import cli
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.synthesis import Grid, RawImage, write_raw

PLAN = """
name = "p"
seed = 1
[task]
landmarks = ["AC", "PC"]
spacing_mm = 2.0
roi = 9
[network]
width = 4
[learner]
updates = 10
searches = 16
warmup = 100
[rounds]
training = 1
"""


def command(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    code = {
        "cairn-site": "site_client.cli",
        "cairn-aggregator": "aggregator.cli",
        "cairn-audit": "common.audit.cli",
    }[program]
    return subprocess.run(
        [sys.executable, "-c", f"from {code} import main; main()", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images with landmarks in place."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        voxels = rng.integers(0, 255, (20, 20, 20)).astype(np.float32)
        grid = Grid((20, 20, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), np.eye(3))
        write_raw(folder / f"case{number}.nii.gz", RawImage(voxels, grid))
        points = {"AC": np.array([20.0, 20.0, 20.0]), "PC": np.array([10.0, 20.0, 20.0])}
        write_landmarks(folder / f"case{number}.mrk.json", points, "LPS")
    return folder


@pytest.fixture
def train(plan, capsys, tmp_path):
    """Type `cairn-site train` in this process: its exit code and what stood on the screen.

    Another process would spend most of its time on importing torch; two tests below do so.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]

    def type_it(data):
        words = ["train", "--plan", plan, "--data", data, "-o", tmp_path / "out"]
        with pytest.raises(SystemExit) as ended:
            run(cli, [str(word) for word in words])
        return ended.value.code or 0, capsys.readouterr().err

    yield type_it
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def test_a_missing_data_folder_is_bad_input(train, tmp_path):
    code, said = train(tmp_path / "absent")
    assert code == 6
    assert "no such data" in said


def test_images_without_landmarks_are_refused_by_name_where_none_has_any(train, data):
    for path in data.glob("*.mrk.json"):
        path.unlink()
    code, said = train(data)
    assert code == 6
    assert "case1" in said


def test_an_image_without_landmarks_is_left_out_and_counted(plan, data, tmp_path):
    (data / "case1.mrk.json").unlink()
    done = command("cairn-site", "train", "--plan", plan, "--data", data, "-o", tmp_path / "out")
    assert "1 image without landmarks left out" in done.stderr


def test_a_landmark_outside_its_image_is_named_with_its_case(train, data):
    points = {"AC": np.array([500.0, 20.0, 20.0]), "PC": np.array([10.0, 20.0, 20.0])}
    (data / "case2.mrk.json").unlink()
    write_landmarks(data / "case2.mrk.json", points, "LPS")
    code, said = train(data)
    assert code == 6
    assert "case2" in said
    assert "AC" in said
    assert "500" not in said, "a position is data and is not quoted"


def test_sound_data_is_trained_on(train, data, tmp_path):
    code, said = train(data)
    assert code == 0, said
    assert (tmp_path / "out" / "latest" / "model.safetensors").exists()


def test_a_plan_with_a_wrong_field_names_it(plan, data, tmp_path):
    plan.write_text(PLAN.replace("seed = 1", "seed = -1"))
    done = command("cairn-site", "train", "--plan", plan, "--data", data, "-o", tmp_path / "out")
    assert done.returncode == 6
    assert "seed" in done.stderr


def test_an_edited_ledger_fails_verification_and_names_the_record(site):
    key = read_signing_key(site.folder.ledger_key)
    origin = ledger_origin(site.folder.settings().site)
    with Ledger.open(site.folder.ledger, origin, key, lambda: datetime.now(UTC)) as ledger:
        for number in range(3):
            ledger.append("REFUSE", code=number + 1)
    log = site.folder.ledger / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"code":2', b'"code":7'))
    done = command("cairn-audit", "verify", site.folder.ledger, "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["ledgers"][0]["broken"]["seq"] == 2


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("cairn-aggregator", ["round", "start", "absent.toml", "--dir", "nowhere"]),
        ("cairn-aggregator", ["status", "--dir", "nowhere"]),
        ("cairn-site", ["status", "--site-dir", "nowhere"]),
        ("cairn-site", ["worker", "--site-dir", "nowhere"]),
        ("cairn-site", ["courier", "--site-dir", "nowhere"]),
        ("cairn-audit", ["verify", "nowhere"]),
    ],
)
def test_a_folder_that_is_not_there_is_bad_input_everywhere(program, words):
    done = command(program, *words)
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["cairn-aggregator", "cairn-site", "cairn-audit"])
def test_an_unknown_command_is_a_usage_error(program):
    assert command(program, "frobnicate").returncode == 2


@pytest.mark.parametrize("program", ["cairn-aggregator", "cairn-site", "cairn-audit"])
def test_help_teaches_the_exit_codes(program):
    done = command(program, "--help")
    assert done.returncode == 0
    assert "Exit codes" in done.stdout
