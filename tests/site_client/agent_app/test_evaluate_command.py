"""`cairn-site evaluate`: honest figures, and files that other programs open at the right place."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from common.errors import InputDataError, UsageError
from site_client.agent_app.checkpoint import read_checkpoint, write_checkpoint
from site_client.imaging.landmark_tables import read_landmark_table
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.kinds.landmark_errors import LandmarkRow, mean_row

QUICK = (
    *("--set", "evaluation.poses=1", "--set", "evaluation.starts=2"),
    *("--set", "evaluation.most_steps=6"),
)
CUBE = {
    "data": {"pixel_mm": 0.0, "validation_share": 0.34},
    "task": {"kind": "landmark-3d", "spacing_mm": 1.0, "roi": 15, "zooms": [1.0]},
    "network": {"architecture": "triplanar", "width": 4, "hidden": [16]},
    "learner": {"updates": 4, "batch": 4, "searches": 2, "warmup": 8},
    "evaluation": {"most_steps": 6},
    "run": {"evaluate_every": 4},
}


def changed(kind, architecture, **task):
    return {
        **CUBE,
        "task": {**CUBE["task"], "kind": kind, **task},
        "network": {**CUBE["network"], "architecture": architecture},
    }


def test_figures_predictions_and_page_say_the_same(tmp_path, cairn, pictures, trained):
    held, result = pictures("held", seed=9), tmp_path / "result"
    told = json.loads(
        cairn("evaluate", "--checkpoint", trained, "--data", held, "-o", result, "--json").stdout
    )
    assert told == json.loads((result / "metrics.json").read_text())
    *landmarks, mean = told["posed"]
    assert [row["landmark"] for row in landmarks] == ["spot", "corner"]
    assert mean["mean_mm"] == pytest.approx(np.mean([row["mean_mm"] for row in landmarks]))
    assert all(row["searches"] == 4 * 2 * 3 for row in landmarks)
    # It has learned something: this is no untrained network that is measured.
    assert mean["mean_mm"] < mean["prior_mm"]
    assert all(0 <= row["success"]["2mm"] <= row["success"]["4mm"] <= 1 for row in told["native"])
    page = (result / "report.html").read_text()
    assert f"{mean['mean_mm']:.2f} mm on average" in page
    assert f"{mean['prior_mm']:.2f} mm" in page
    # The predicted files, read as any landmark file is, lie where the errors say.
    table = read_landmark_table(result / "predictions" / "predictions.csv")
    assert (table.unit, table.frame) == ("mm", "LPS")
    gaps = []
    for k in range(4):
        truth = read_landmarks(held / f"case{k}.mrk.json")
        found = read_landmarks(result / "predictions" / f"case{k}.mrk.json")
        for name in truth:
            np.testing.assert_allclose(found[name], table.of(f"case{k}")[name], atol=1e-3)
            gaps.append(np.linalg.norm(found[name] - truth[name]))
    native = told["native"][-1]
    assert np.mean(gaps) == pytest.approx(native["consensus_mm"], abs=0.02)


def test_the_page_asks_for_nothing_from_anywhere(tmp_path, cairn, trained):
    result = tmp_path / "result"
    cairn("evaluate", "--checkpoint", trained, "-o", result, *QUICK)
    page = (result / "report.html").read_text()
    links = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']([^"']*)""", page)
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"@import|<script|<link|<iframe", page)
    assert all(u.startswith("#") for u in re.findall(r"url\(([^)]*)\)", page))
    cairn("evaluate", "--checkpoint", trained, "-o", result, "--no-pictures", *QUICK)
    assert "base64" not in (result / "report.html").read_text()


def test_a_name_in_the_data_cannot_write_into_the_page(tmp_path, cairn, pictures, trained):
    held = pictures("held", count=1)
    (held / "case0.png").rename(held / "<b>x&.png")
    (held / "case0.mrk.json").rename(held / "<b>x&.mrk.json")
    cairn("evaluate", "--checkpoint", trained, "--data", held, "-o", tmp_path / "result", *QUICK)
    page = (tmp_path / "result/report.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;x&amp;" in page


def test_without_data_the_subjects_that_the_run_held_out_are_measured(cairn, trained):
    told = json.loads(cairn("evaluate", "--checkpoint", trained, "--json").stdout)
    assert told["cases"] == 1
    text = cairn("evaluate", "--checkpoint", trained / "latest").stdout
    assert "under random poses" in text
    assert "corner" in text


def test_only_reading_and_searching_can_be_set_for_a_trained_network(cairn, trained):
    told = json.loads(
        cairn(
            *("evaluate", "--checkpoint", trained, "--json"),
            *("--set", "evaluation.starts=1", "--set", "evaluation.poses=1"),
        ).stdout
    )
    assert told["posed"][0]["searches"] == 1
    with pytest.raises(UsageError, match=r"task\.roi"):
        cairn("evaluate", "--checkpoint", trained, "--set", "task.roi=17")


def test_the_landmarks_of_held_out_images_may_stand_in_a_table(tmp_path, cairn, pictures, trained):
    held = pictures("held", count=2)
    rows = ["case,landmark,x_px,y_px"]
    for k in range(2):
        for name, at in read_landmarks(held / f"case{k}.mrk.json").items():
            rows.append(f"case{k}.png,{name},{at[0] / 0.5},{at[1] / 0.5}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    words = ("evaluate", "--checkpoint", trained, "--data", held, "--json", *QUICK)
    beside = json.loads(cairn(*words).stdout)
    table = json.loads(cairn(*words, "--landmarks", tmp_path / "t.csv").stdout)
    assert table["posed"][-1]["mean_mm"] == pytest.approx(beside["posed"][-1]["mean_mm"], abs=1e-6)


@pytest.mark.parametrize("tables", ["none", "wrong names", "outside"])
def test_bad_landmarks_are_refused_by_case_and_name(tmp_path, cairn, pictures, trained, tables):
    held = pictures("held", count=1)
    path = held / "case0.mrk.json"
    if tables == "none":
        path.unlink()
    elif tables == "wrong names":
        write_landmarks(path, {"nose": np.zeros(3)})
    else:
        write_landmarks(path, {"spot": np.array([-20.0, -20.0, 0.0])})
    with pytest.raises(InputDataError, match="case0") as refused:
        cairn("evaluate", "--checkpoint", trained, "--data", held)
    assert refused.value.exit_code == 6
    if tables == "outside":
        assert "spot" in str(refused.value)
        assert "opposite signs" in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        changed("landmark-3d", "triplanar"),
        changed("landmark-3d-cube", "volume-light", frames=2),
        changed("multi-agent-3d", "volume-light"),
        changed("multi-agent-3d", "volume-light", agents_per_landmark=2),
    ],
    ids=["triplanar", "cube", "team", "votes"],
)
def test_volumes_go_all_the_way_whatever_the_task(tmp_path, cairn, volumes, make_config, settings):
    data, run, result = volumes(), tmp_path / "run", tmp_path / "result"
    cairn("train", "--config", make_config(**settings), "--data", data, "-o", run)
    told = json.loads(cairn("evaluate", "--checkpoint", run, "-o", result, "--json", *QUICK).stdout)
    rows = [row for row in told["native"] if row["landmark"] != "mean"]
    assert {row["landmark"].split(" #")[0] for row in rows} == {"AC", "PC"}
    assert all(np.isfinite(row["prior_mm"]) for row in rows)
    held = json.loads((run / "split.json").read_text())["validation"]
    found = read_landmarks(result / "predictions" / f"{held[0]}.mrk.json")
    truth = read_landmarks(data / f"{held[0]}.mrk.json")
    table = read_landmark_table(result / "predictions" / "predictions.csv")
    errors = (result / "predictions" / "predictions.csv").read_text().splitlines()[3:]
    for line, name in zip(errors, ("AC", "PC"), strict=True):
        gap = np.linalg.norm(found[name] - truth[name])
        assert float(line.split(",")[-1]) == pytest.approx(gap, abs=1e-3)
        np.testing.assert_allclose(table.of(held[0])[name], found[name], atol=1e-3)
    films = tmp_path / "films"
    cairn("play", "--checkpoint", run, data / "head0.nii.gz", "-o", films, "--gif", *QUICK)
    assert list(films.glob("head0_*.gif"))


def test_a_checkpoint_without_a_prior_says_so(tmp_path, cairn, trained):
    known = read_checkpoint(trained / "best")
    write_checkpoint(
        tmp_path / "bare",
        type(known)(known.config, known.weights, known.updates, known.landmarks),
    )
    result = tmp_path / "result"
    text = cairn("evaluate", "--checkpoint", tmp_path / "bare", "-o", result, *QUICK).stdout
    assert "unknown" in text
    assert "NO PRIOR TO COMPARE WITH" in (result / "report.html").read_text()


def test_an_agent_that_is_worse_than_the_constant_is_called_so(tmp_path, cairn, trained):
    known = read_checkpoint(trained / "best")
    generator = torch.Generator().manual_seed(0)
    noise = {
        name: torch.randn(value.shape, generator=generator).numpy()
        for name, value in known.weights.items()
    }
    write_checkpoint(
        tmp_path / "bad",
        type(known)(known.config, noise, 0, known.landmarks, prior_mm=known.prior_mm),
    )
    cairn("evaluate", "--checkpoint", tmp_path / "bad", "-o", tmp_path / "result", *QUICK)
    assert "NO BETTER THAN A CONSTANT" in (tmp_path / "result/report.html").read_text()


def test_every_landmark_counts_equally_in_the_mean():
    def row(name, searches, mean, prior):
        return LandmarkRow(name, searches, mean, 0.0, mean, (0.0,) * 4, 0.0, mean, prior, None)

    mean = mean_row([row("a", 1000, 1.0, 4.0), row("b", 2, 3.0, None)])
    assert (mean.mean_mm, mean.prior_mm, mean.searches) == (2.0, 4.0, 1002)
