"""`cairn-site play` and `import-weights`: no truth, films, and the weights of others."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputDataError, UsageError
from site_client.agent_app.checkpoint import find_checkpoint, read_checkpoint
from site_client.imaging.drawing import FOUND
from site_client.imaging.films import write_mp4
from site_client.imaging.landmarks import read_landmarks


def test_what_is_found_has_a_place_and_a_spread_but_no_error(tmp_path, cairn, pictures, trained):
    unknown = pictures("unknown", count=2, seed=4)
    for marks in unknown.glob("*.mrk.json"):
        marks.unlink()
    found = tmp_path / "found"
    text = cairn("play", "--checkpoint", trained, unknown, "-o", found).stdout
    assert text.count("N/A") == 4
    rows = (found / "predictions.csv").read_text().splitlines()[3:]
    assert all(row.endswith(",N/A") for row in rows)
    told = json.loads(cairn("play", "--checkpoint", trained, unknown, "--json").stdout)
    assert [entry["error_mm"] for entry in told["found"]] == [None] * 4
    assert all(entry["spread_mm"] >= 0 for entry in told["found"])
    for entry in told["found"]:
        point = read_landmarks(found / f"{entry['case']}.mrk.json")[entry["landmark"]]
        np.testing.assert_allclose(point, entry["position_lps_mm"], atol=1e-3)


def test_a_truth_that_lies_beside_the_image_changes_nothing(tmp_path, cairn, pictures, trained):
    told = cairn("play", "--checkpoint", trained, pictures("known", seed=4), "--json").stdout
    bare = tmp_path / "known"
    for marks in bare.glob("*.mrk.json"):
        marks.unlink()
    assert cairn("play", "--checkpoint", trained, bare, "--json").stdout == told


def test_a_film_shows_the_search_to_its_end(tmp_path, cairn, trained):
    found = tmp_path / "found"
    image = trained.parent / "images" / "case1.png"
    cairn("play", "--checkpoint", trained, image, "-o", found, "--gif")
    films = sorted(found.glob("*.gif"))
    assert [film.name for film in films] == ["case1_corner.gif", "case1_spot.gif"]
    with Image.open(films[0]) as film:
        assert film.n_frames >= 2
        film.seek(film.n_frames - 1)
        assert film.info["duration"] > 1000
        colours = np.asarray(film.convert("RGB")).reshape(-1, 3)
    gap = np.abs(colours.astype(int) - FOUND).max(axis=1)
    assert (gap < 16).sum() > 10


def test_mp4_without_ffmpeg_is_a_clear_no_before_anything_is_searched(
    tmp_path, cairn, trained, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    image = trained.parent / "images" / "case1.png"
    with pytest.raises(UsageError, match="ffmpeg program on the PATH"):
        cairn("play", "--checkpoint", trained, image, "-o", tmp_path / "found", "--mp4")
    assert not (tmp_path / "found").exists()


def test_mp4_frames_reach_ffmpeg_with_even_sides(tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\ncat > "$last"\necho "$@" > "$last.words"\n'
    )
    program.chmod(0o755)
    frames = [Image.new("RGB", (31, 21), colour) for colour in ("red", "blue")]
    write_mp4(str(program), tmp_path / "film.mp4", frames)
    assert "-s 30x20" in (tmp_path / "film.mp4.words").read_text()
    raw = (tmp_path / "film.mp4").read_bytes()
    assert len(raw) % (30 * 20 * 3) == 0
    assert raw[:3] == bytes((255, 0, 0))
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(InputDataError, match="exit code 3"):
        write_mp4(str(program), tmp_path / "film.mp4", frames)


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (["--gif"], UsageError, "films need a folder"),
        (["nowhere.png"], InputDataError, r"nowhere\.png"),
        (["--set", "data.pixel_mm=0"], InputDataError, "how large its pixels are"),
    ],
)
def test_what_cannot_be_played_is_refused(tmp_path, cairn, trained, words, kind, says):
    image = trained.parent / "images" / "case1.png"
    with pytest.raises(kind, match=says):
        cairn("play", "--checkpoint", trained, image, *words)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path, cairn, trained):
    with pytest.raises(InputDataError, match="no checkpoint"):
        cairn("play", "--checkpoint", trained.parent / "images", trained.parent / "images")


@pytest.fixture
def rl_medical_file(tmp_path):
    """A file as rl-medical saves one: its names and shapes, random numbers."""

    def make(agents):
        generator = torch.Generator().manual_seed(1)
        shapes = {}
        for i, (inputs, outputs, k) in enumerate(
            ((4, 32, 5), (32, 32, 5), (32, 64, 4), (64, 64, 3))
        ):
            shapes[f"conv{i}.weight"] = (outputs, inputs, k, k, k)
            shapes |= {f"conv{i}.bias": (outputs,), f"prelu{i}.weight": (1,)}
        for agent in range(agents):
            for i, (inputs, outputs) in enumerate(((512, 256), (256, 128), (128, 6)), start=1):
                shapes[f"fc{i}.{agent}.weight"] = (outputs, inputs * (1 if agents == 1 else 2))
                shapes[f"fc{i}.{agent}.bias"] = (outputs,)
            shapes |= {f"prelu{i}.{agent}.weight": (1,) for i in (4, 5)}
        state = {n: 0.02 * torch.randn(shape, generator=generator) for n, shape in shapes.items()}
        buffer = io.BytesIO()
        writer = torch.save  # noqa: TID251 (the peer whose files we read)
        writer(state, buffer)
        (tmp_path / "theirs.pt").write_bytes(buffer.getvalue())
        return tmp_path / "theirs.pt"

    return make


@pytest.mark.parametrize(
    ("agents", "landmarks", "kind"),
    [(1, ["AC"], "landmark-3d-cube"), (2, ["AC", "PC"], "multi-agent-3d"), (2, ["AC"], "votes")],
)
def test_weights_of_rl_medical_can_be_played_and_measured(
    tmp_path, cairn, volumes, rl_medical_file, agents, landmarks, kind
):
    place, data = tmp_path / "theirs", volumes(count=1)
    names = [word for name in landmarks for word in ("--landmark", name)]
    told = json.loads(
        cairn("import-weights", rl_medical_file(agents), "-o", place, *names, "--json").stdout
    )
    assert told["task"] == ("multi-agent-3d" if kind == "votes" else kind)
    checkpoint = read_checkpoint(find_checkpoint(place))
    assert "rl-medical" in checkpoint.origin
    quick = ("--set", "evaluation.starts=1", "--set", "evaluation.poses=1")
    quick += ("--set", "evaluation.most_steps=2")
    found = json.loads(cairn("play", "--checkpoint", place, data, "--json", *quick).stdout)["found"]
    assert [entry["landmark"] for entry in found] == landmarks
    result = tmp_path / "result"
    cairn("evaluate", "--checkpoint", place, "--data", data, "-o", result, *quick)
    lines = (result / "predictions" / "predictions.csv").read_text().splitlines()[3:]
    truth = read_landmarks(data / "head0.mrk.json")
    for line, name in zip(lines, landmarks, strict=True):
        x, y, z, _, error = (float(cell) for cell in line.split(",")[2:])
        # Their turned axis and shifted window are undone: the place and its error agree.
        assert np.linalg.norm(np.array([x, y, z]) - truth[name]) == pytest.approx(error, abs=1e-2)


def test_a_file_that_is_no_network_is_refused(tmp_path, cairn):
    (tmp_path / "x.pt").write_bytes(b"not a network")
    with pytest.raises(InputDataError):
        cairn("import-weights", tmp_path / "x.pt", "-o", tmp_path / "out", "--landmark", "AC")
    assert not (tmp_path / "out").exists()


def test_the_number_of_landmarks_must_fit(tmp_path, cairn, rl_medical_file):
    words = ("import-weights", rl_medical_file(1), "-o", tmp_path / "out")
    with pytest.raises(UsageError, match="one name"):
        cairn(*words, "--landmark", "AC", "--landmark", "PC")
