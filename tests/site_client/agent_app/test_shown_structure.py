"""Structure in place of greys, and copies in other contrasts: from a plan to what a model plays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from common.errors import InputDataError
from common.plan import parse_plan
from site_client.agent.tasks.contrasts import in_random_contrasts
from site_client.agent_app.checkpoint import open_checkpoint
from site_client.agent_app.config import parse_config
from site_client.agent_app.playing import cases_to_play, play
from site_client.imaging.cases import pixels_of
from site_client.imaging.structure import structured
from site_client.kinds.kind import kind_of
from site_client.worker.site_cases import read_site_cases
from tests.site_client.agent_app.conftest import SMALL, run_line, write_config, write_pictures
from tests.site_client.agent_app.test_every_kind_federates import WITHIN_BOUNDS
from tests.site_client.agent_app.test_one_vocabulary import small

SEES = ("landmark-3d", "landmark-3d-cube", "landmark-2d", "multi-agent-3d")


@pytest.fixture(scope="module")
def trained_both_ways(tmp_path_factory):
    """A run on greys, one on structure, and their images; only to be read."""
    root = tmp_path_factory.mktemp("shown")
    images, runs = write_pictures(root), {}
    for shown in ("greys", "structure"):
        config = write_config(root, f"{shown}.toml", task={"shown": shown})
        runs[shown] = root / shown
        run_line("train", "--config", config, "--data", images, "-o", runs[shown])
    return runs, images


def found_in(run, images, change=lambda channels: channels):
    """float64[landmarks, 2], mm: where a run's model finds what it looks for in the first image."""
    _, checkpoint = open_checkpoint(run)
    config = checkpoint.config
    cases = cases_to_play([images / "case0.png"], checkpoint, config, lambda *_: None)
    (case,) = cases.pictures
    case = replace(case, picture=replace(case.picture, channels=change(case.picture.channels)))
    played = play(checkpoint, config, replace(cases, pictures=(case,)))
    return np.stack([each.position for each in played.answers.findings])


def test_the_setting_goes_with_the_model_and_an_inverted_image_gives_the_same_places(
    trained_both_ways,
):
    runs, images = trained_both_ways
    for shown, run in runs.items():
        assert open_checkpoint(run)[1].config.task.shown == shown
    invert = np.invert
    structured_ones = [found_in(runs["structure"], images, f) for f in (np.copy, invert)]
    np.testing.assert_array_equal(*structured_ones)
    greys = [found_in(runs["greys"], images, f) for f in (np.copy, invert)]
    assert not np.array_equal(*greys)


def test_a_measurement_sees_what_the_training_saw(trained_both_ways):
    runs, images = trained_both_ways
    figures = {
        shown: json.loads(
            run_line("evaluate", "--checkpoint", run, "--data", images, "--json").stdout
        )
        for shown, run in runs.items()
    }
    assert figures["greys"]["posed"] != figures["structure"]["posed"]


@pytest.mark.parametrize("kind", SEES)
def test_agents_of_every_kind_see_structure_and_people_the_image(kind, request):
    dim = 2 if kind == "landmark-2d" else 3
    plan = small(kind, task={"roi": 17, "shown": "structure"}, **WITHIN_BOUNDS)
    images = request.getfixturevalue("pictures" if dim == 2 else "volumes")()
    cases = site_cases(images, plan, dim)
    greys = small(kind, task={"roi": 17}, **WITHIN_BOUNDS)
    seen = kind_of(greys).build(structured(cases.cases), greys).task
    starts = cases.task.draw(np.random.default_rng(0), 5)
    np.testing.assert_array_equal(cases.task.observe(starts), seen.observe(starts))
    assert cases.built.cases is cases.cases


@pytest.mark.parametrize("kind", SEES)
def test_training_looks_at_copies_in_other_contrasts_and_measuring_does_not(kind, request):
    dim = 2 if kind == "landmark-2d" else 3
    plan = small(kind, task={"roi": 17, "contrasts": 2, "shown": "structure"}, **WITHIN_BOUNDS)
    images = request.getfixturevalue("pictures" if dim == 2 else "volumes")()
    cases = site_cases(images, plan, dim)
    assert len(cases.to_learn_from) == 3 * len(cases.task)
    copies = in_random_contrasts(cases.cases, 2)
    assert [case.name for case in copies.each] == [c.name for c in cases.cases.each for _ in "ab"]
    for k, case in enumerate(copies.each):
        original = cases.cases.each[k // 2]
        assert case.landmarks_mm is original.landmarks_mm
        assert not np.array_equal(pixels_of(case), pixels_of(original))
        # Greys for greys: where the original has one grey, the copy has one.
        pairs = np.unique(np.stack([pixels_of(original).ravel(), pixels_of(case).ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_crops_and_contrasts_stand_beside_each_other(pictures):
    plan = small("landmark-2d", task={"roi": 17, "contrasts": 2, "crops": 1}, **WITHIN_BOUNDS)
    cases = site_cases(pictures(count=4), plan, 2)
    assert 3 * 4 < len(cases.to_learn_from) <= 4 * 4


def site_cases(images, plan, dim):
    """The cases of a site's folder, as its worker reads them."""
    settings = images.parent / "data.toml"
    if dim == 2:
        settings.write_text("pixel_mm = 0.5\n")
    return read_site_cases(images, plan, lambda *_: None, settings=settings)


def test_a_plan_that_says_nothing_of_it_keeps_its_fingerprint():
    said = {"name": "mine", "seed": 1, "task": SMALL["task"] | {"landmarks": ["spot", "corner"]}}
    sections = {name: SMALL[name] for name in ("ladder", "pose", "network", "learner")}
    plan = parse_plan(said | sections)
    for key, silent, loud in (("shown", "greys", "structure"), ("contrasts", 0, 1)):
        one, other = (
            parse_plan(said | sections | {"task": said["task"] | {key: value}})
            for value in (silent, loud)
        )
        assert one.fingerprint == plan.fingerprint != other.fingerprint
        assert key not in json.loads(plan.model_dump_json())["task"]


@pytest.mark.parametrize(
    "task",
    [
        {"shown": "edges"},
        {"shown": ""},
        {"kind": "seed-2d", "shown": "structure"},
        {"kind": "tracking-2d", "contrasts": 1},
        {"contrasts": 17},
    ],
)
def test_what_cannot_be_shown_is_refused(task):
    with pytest.raises(InputDataError):
        parse_config({"task": task})
