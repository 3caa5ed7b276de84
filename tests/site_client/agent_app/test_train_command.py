"""`cairn-site train`: what a person types, what the folder holds, and that a stop costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.numpy import load_file

from common.canonical import sha256_hex
from common.errors import ExitCode, InputDataError, UsageError
from site_client.agent_app.checkpoint import find_checkpoint, read_checkpoint, weights_sha256


def weights_file(run):
    return sha256_hex((run / "latest" / "model.safetensors").read_bytes())


def test_a_run_leaves_checkpoints_metrics_and_its_configuration(
    tmp_path, cairn, pictures, make_config
):
    result = cairn(
        "train", "--config", make_config(), "--data", pictures(), "-o", tmp_path / "run", "--json"
    )
    told = json.loads(result.stdout)
    assert told["finished"]
    assert (told["training_cases"], told["validation_cases"]) == (3, 1)
    assert told["weights_sha256"] == weights_file(tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    measured = [line["validation/mean_mm"] for line in lines if "validation/mean_mm" in line]
    assert [line["updates"] for line in lines if "validation/mean_mm" in line] == [8, 16, 24]
    best = read_checkpoint(find_checkpoint(tmp_path / "run"))
    assert best.validation_mm == min(measured) == told["best_mm"]
    assert best.landmarks == ("spot", "corner")
    split = json.loads((tmp_path / "run/split.json").read_text())
    assert sorted(split["training"] + split["validation"]) == ["case0", "case1", "case2", "case3"]
    assert list((tmp_path / "run/tensorboard").iterdir())
    # The configuration that was written trains the same weights again.
    again = ("train", "--config", tmp_path / "run/config.toml", "-o", tmp_path / "again")
    cairn(*again)
    assert weights_file(tmp_path / "again") == told["weights_sha256"]


def test_best_is_the_mean_over_all_landmarks(tmp_path, cairn, pictures, make_config):
    cairn("train", "--config", make_config(), "--data", pictures(), "-o", tmp_path / "run")
    for text in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "validation/mean_mm" in line:
            each = (line["validation/spot_mm"] + line["validation/corner_mm"]) / 2
            assert line["validation/mean_mm"] == pytest.approx(each)


def wait_for(condition, process, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"the run ended or hangs: {process.communicate()[1]}")
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_that_was_killed_twice_ends_with_the_weights_of_one_that_was_not(
    tmp_path, cairn, pictures, make_config
):
    data, run = pictures(), tmp_path / "run"
    config = make_config(
        learner={"updates": 250}, run={"evaluate_every": 90, "checkpoint_every": 70}
    )
    command = [sys.executable, "-m", "site_client.cli", "train"]
    start = [*command, "--config", str(config), "--data", str(data), "-o", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment)
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > 500, process)
    process.send_signal(signal.SIGTERM)
    _, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    stopped = read_checkpoint(run / "latest")
    assert 0 < stopped.updates < 250
    # Again, and this time without a chance to save: SIGKILL after the next regular save.
    process = subprocess.Popen(
        [*command, "--resume", "-o", str(run)], stderr=subprocess.PIPE, text=True, env=environment
    )
    about = run / "latest" / "checkpoint.json"
    before = about.stat().st_mtime_ns
    wait_for(lambda: about.exists() and about.stat().st_mtime_ns != before, process)
    process.kill()
    process.communicate()
    cairn("train", "--resume", "-o", run)
    cairn("train", "--config", config, "--data", data, "-o", tmp_path / "whole")
    assert weights_file(run) == weights_file(tmp_path / "whole")
    assert read_checkpoint(run / "latest").updates == 250
    for part in ("latest/state.safetensors", "best/model.safetensors"):
        one, two = load_file(run / part), load_file(tmp_path / "whole" / part)
        assert set(one) == set(two)
        assert all((one[name] == two[name]).all() for name in one), part
    updates = [json.loads(line)["updates"] for line in metrics.read_text().splitlines()]
    assert updates == sorted(updates)


def test_print_config_can_be_used_as_it_is(tmp_path, cairn):
    for kind in ("landmark-3d", "landmark-3d-cube", "landmark-2d", "multi-agent-3d"):
        text = cairn("train", "--print-config", "--task", kind).stdout
        (tmp_path / "one.toml").write_text(text)
        assert cairn("train", "--print-config", "--config", tmp_path / "one.toml").stdout == text
        uncommented = [line for line in text.splitlines() if line and line[0] not in "#["]
        assert len(uncommented) > 50


def test_a_folder_with_a_run_is_not_overwritten(tmp_path, cairn, pictures, make_config):
    words = ("train", "--config", make_config(), "--data", pictures(), "-o", tmp_path / "run")
    cairn(*words)
    with pytest.raises(UsageError, match="holds a run already"):
        cairn(*words)


def test_a_run_does_not_go_on_with_other_images_or_settings(tmp_path, cairn, pictures, make_config):
    run = tmp_path / "run"
    cairn("train", "--config", make_config(), "--data", pictures(), "-o", run)
    with pytest.raises(InputDataError, match="not the cases that the run began with"):
        cairn("train", "--resume", "-o", run, "--data", pictures("others", seed=5))
    other = make_config("other.toml", learner={"batch": 9})
    with pytest.raises(InputDataError, match=r"learner\.batch"):
        cairn("train", "--resume", "-o", run, "--config", other)
    same = make_config("same.toml")
    assert cairn("train", "--resume", "-o", run, "--config", same, "--data", tmp_path / "images")


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["--set", "learner.bach=3"], r"learner\.bach must be learner\.batch", 6),
        (["--set", "lerner.batch=3"], "lerner must be one of .*learner", 6),
        (["--set", "learner.batch"], "--set is not understood", 2),
        (["--set", "network.architecture=network3d"], "planar or paper2d for landmark-2d", 6),
        (["--task", "landmark-3d"], "--task is not the task.kind", 2),
        (["--data", "nowhere"], "nowhere must be", 6),
        (["--set", 'task.landmarks=["nose"]'], r"nose", 6),
        (["--set", 'data.validation_subjects=["x"]'], "unknown: x", 6),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path, cairn, pictures, make_config, words, says, code
):
    data = ("--data", pictures())
    with pytest.raises((InputDataError, UsageError), match=says) as refused:
        cairn("train", "--config", make_config(), *data, "-o", tmp_path / "run", *words)
    assert refused.value.exit_code == code
    assert not (tmp_path / "run").exists()


def test_without_a_run_there_is_nothing_to_go_on_from(tmp_path, cairn):
    with pytest.raises(UsageError, match="nothing to go on from") as refused:
        cairn("train", "--resume", "-o", tmp_path / "run")
    assert refused.value.exit_code == ExitCode.USAGE


def test_a_damaged_checkpoint_is_refused(tmp_path, cairn, pictures, make_config):
    run = tmp_path / "run"
    cairn("train", "--config", make_config(), "--data", pictures(), "-o", run)
    model = run / "latest" / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(bytes(data))
    with pytest.raises(InputDataError, match="checkpoint is damaged"):
        cairn("train", "--resume", "-o", run)


def test_a_death_between_two_renames_loses_nothing(tmp_path, cairn, pictures, make_config):
    run = tmp_path / "run"
    cairn("train", "--config", make_config(), "--data", pictures(), "-o", run)
    before = weights_file(run)
    (run / "latest").rename(run / "latest.old")
    cairn("train", "--resume", "-o", run)
    assert weights_file(run) == before


# Beginning with a model.


def test_a_run_begins_with_the_weights_and_settings_of_a_model(
    tmp_path, cairn, pictures, make_config
):
    data, first = pictures(), tmp_path / "first"
    cairn("train", "--config", make_config(), "--data", data, "-o", first)
    model = read_checkpoint(find_checkpoint(first))
    others = pictures("others", seed=5)
    none = ("--set", "learner.learning_rate=1e-30", "--set", "learner.updates=1")
    cairn("train", "--checkpoint", first, "--data", others, "-o", tmp_path / "second", *none)
    second = read_checkpoint(tmp_path / "second/latest", with_state=True)
    assert second.weights.keys() == model.weights.keys()
    for name, weights in second.weights.items():
        assert weights == pytest.approx(model.weights[name], abs=1e-6), name
    assert second.config.run.start == weights_sha256(model.weights)
    assert second.config.network == model.config.network
    assert second.config.data.images == str(others)
    assert second.updates == 1
    # It goes on where it was stopped without being told again where it began, and keeps that.
    cairn("train", "--resume", "-o", tmp_path / "second")
    same = make_config("same.toml", learner={"learning_rate": 1e-30, "updates": 1})
    cairn("train", "--resume", "-o", tmp_path / "second", "--config", same, "--data", others)
    resumed = read_checkpoint(tmp_path / "second/latest")
    assert resumed.config.run.start == second.config.run.start
    other = make_config("other.toml", run={"start": "0" * 64}, learner={"updates": 1})
    with pytest.raises(InputDataError, match=r"run\.start"):
        cairn("train", "--resume", "-o", tmp_path / "second", "--config", other)


def test_what_a_model_is_not_for_is_refused_before_anything_is_written(
    tmp_path, cairn, pictures, make_config
):
    data, first = pictures(), tmp_path / "first"
    cairn("train", "--config", make_config(), "--data", data, "-o", first)
    start = ("--checkpoint", first, "--data", data, "-o", tmp_path / "second")
    for words, says, code in (
        (("--set", "network.width=5"), "weights of another network", 6),
        (("--set", 'task.landmarks=["corner"]'), r"task\.landmarks", 6),
        (("--task", "landmark-3d"), r"task\.kind must be landmark-2d", 6),
        (("--set", f"run.start={'0' * 64}"), r"run\.start", 6),
        (("--resume",), "a run goes on, or begins with a model", 2),
        (("--model", "latest"), "name one model", 2),
    ):
        with pytest.raises((InputDataError, UsageError), match=says) as refused:
            cairn("train", *start, *words)
        assert refused.value.exit_code == code
        assert not (tmp_path / "second").exists()


def test_a_configuration_that_names_its_start_is_not_used_without_it(
    tmp_path, cairn, pictures, make_config
):
    config = make_config(run={"start": "0" * 64})
    with pytest.raises(UsageError, match=r"run\.start must be --checkpoint or --model"):
        cairn("train", "--config", config, "--data", pictures(), "-o", tmp_path / "run")
