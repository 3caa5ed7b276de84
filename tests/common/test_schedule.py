"""What every party reads in a plan: which phase comes in which round."""

import json
import math

import numpy as np
import pytest

from common.errors import InputDataError
from common.keys.pixel_agreement import fit_survey, fit_widest
from common.keys.pixel_statistics import PixelSurvey
from common.plan import parse_plan
from common.schedule import PHASES, is_work, schedule, working_rounds
from common.sketching import SketchSpec
from common.wire.rules import ANSWERS
from site_client.pixels.counting import PixelTables

TRAINING = {"name": "p", "seed": 1, "task": {"landmarks": ["AC"]}, "rounds": {"training": 3}}
PIXELS = {"bands": ["a", "b", "c"], "components": 3}
EMBED = {"codec": "a" * 64, "codebook": "b" * 64, "groups": ["x"]}


@pytest.mark.parametrize("kind", ["training", "no-op"])
def test_training_begins_trains_and_ends_with_an_evaluation(kind):
    plan = parse_plan(TRAINING | {"kind": kind})
    assert schedule(plan) == ("begin", "train", "train", "train", "evaluate")
    assert working_rounds(plan) == 3


def test_pixels_are_summed_then_counted_then_named():
    plan = parse_plan({"name": "p", "seed": 1, "kind": "pixels", "pixels": PIXELS})
    assert schedule(plan) == ("begin", "survey", "range", "sketch", "recover")
    assert working_rounds(plan) == 4


def test_embedding_is_one_round():
    plan = parse_plan({"name": "p", "seed": 1, "kind": "embed", "embed": EMBED})
    assert schedule(plan) == ("begin", "embed")
    assert working_rounds(plan) == 1


def test_every_phase_has_its_answers_and_some_are_work():
    assert set(ANSWERS) == set(PHASES)
    assert {phase for phase in PHASES if not is_work(phase)} == {"begin", "evaluate"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pixels": PIXELS}, "without section pixels"),
        ({"kind": "pixels", "pixels": PIXELS}, "without section task"),
        ({"kind": "embed"}, "with section embed"),
    ],
)
def test_a_plan_has_the_sections_of_its_kind_and_no_other(change, says):
    with pytest.raises(InputDataError, match=says):
        parse_plan(TRAINING | change)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"bands": ["a", "a", "b"]}, "pixels"),
        ({"components": 4}, "pixels"),
        ({"bands": ["a", "b"]}, "pixels.bands"),
        ({"components": 2}, "pixels.components"),
        ({"bins": 4097}, "pixels.bins"),
        ({"key_sites": 1}, "pixels.key_sites"),
        ({"key_pixels": 1}, "pixels.key_pixels"),
        ({"codec": "all-bands"}, "pixels"),
        ({"codec": "every-band"}, "pixels.codec"),
        ({"levels": 3}, "pixels"),
        ({"bands": [f"b{i}" for i in range(64)], "components": 64, "bins": 3}, "pixels"),
    ],
)
def test_a_pixels_section_that_cannot_work_is_refused(change, field):
    with pytest.raises(InputDataError) as caught:
        parse_plan({"name": "p", "seed": 1, "kind": "pixels", "pixels": PIXELS | change})
    assert caught.value.field == field


def test_the_bytes_of_a_training_plan_know_nothing_of_pixels():
    text = parse_plan(TRAINING).canonical()
    assert b"pixels" not in text
    assert b"embed" not in text
    # Frozen: sites and ledgers name plans by this digest.
    plan = {"name": "vectors", "seed": 7, "task": {"landmarks": ["AC", "PC"]}}
    digest = "33599bb291c3ffb83affe1052db72b2ee3f09941fa4a35b6af0d9ff72525c678"
    assert parse_plan(plan).fingerprint == digest


def test_the_bytes_of_a_pixels_plan_parse_back_and_know_nothing_of_training():
    plan = parse_plan({"name": "p", "seed": 1, "kind": "pixels", "pixels": PIXELS})
    assert parse_plan(json.loads(plan.canonical())).fingerprint == plan.fingerprint
    for word in (b"learner", b"experience", b"training", b"embed"):
        assert word not in plan.canonical()


def test_prefixes_of_keys_are_those_that_sites_count():
    """The plan says how large the prefix counts are; the site's tables must agree."""
    for components in range(3, 9):
        bands = tuple(f"b{i}" for i in range(components))
        section = {"bands": bands, "components": components, "bins": 4, "floor": 10}
        plan = parse_plan({"name": "p", "seed": 1, "kind": "pixels", "pixels": section})
        gram = np.diag(np.arange(1, components + 1)).astype(np.int64)
        empty = PixelSurvey.empty(bands)
        codec = fit_widest(plan.pixels, PixelSurvey(bands, 1, 0, empty.histogram, gram))
        tables = PixelTables.empty(codec, SketchSpec(3, 16, bytes(16)))
        (longer,) = plan.pixels.ladder[1:]
        assert tables.views.histogram.size == plan.pixels.prefixes
        assert tables.views.prefix.spec.domain == f"{codec.identity}/prefix-{longer}"
        assert tables.presence.spec.domain == f"{codec.identity}/presence"


def all_bands(count, **changes):
    section = {"bands": [f"b{i}" for i in range(count)], "codec": "all-bands"} | changes
    return parse_plan({"name": "p", "seed": 1, "kind": "pixels", "pixels": section})


def test_a_plan_of_all_bands_needs_no_ranges_and_says_nothing_of_components():
    plan = all_bands(35)
    assert schedule(plan) == ("begin", "survey", "sketch", "recover")
    assert parse_plan(json.loads(plan.canonical())).fingerprint == plan.fingerprint
    for word in (b"components", b"bins", b"tail"):
        assert word not in plan.canonical()
    assert plan.pixels.tables == ("full", "prefix_17", "prefix_23", "prefix_29", "presence")
    assert plan.pixels.prefixes == 3**11


def test_bands_that_no_key_can_hold_are_refused_with_how_many_it_can():
    assert all_bands(40).pixels.keys == 3**40
    assert all_bands(64, levels=2).pixels.keys == 2**64
    for count, levels, most in ((41, 3, 40), (65, 2, 64), (33, 4, 32)):
        with pytest.raises(InputDataError, match=f"at most {most} bands at {levels} levels"):
            all_bands(count, levels=levels)


@pytest.mark.parametrize("levels", [2, 3, 5, 11])
def test_prefixes_of_keys_of_all_bands_are_those_that_sites_count(levels):
    """In few enough steps to try every extension, whatever the number of bands."""
    for count in range(3, int(64 / math.log2(levels)) + 1):
        plan = all_bands(count, levels=levels, floor=1)
        gram = np.eye(count, dtype=np.int64)
        histogram = np.zeros(321, np.int64)
        histogram[1] = 5
        codec = fit_survey(plan.pixels, PixelSurvey(plan.pixels.bands, 1, 5, histogram, gram))
        tables = PixelTables.empty(codec, SketchSpec(3, 16, bytes(16)))
        rungs = plan.pixels.ladder
        assert tables.views.histogram.size == plan.pixels.prefixes <= 2**18
        assert len(tables.sketches) == len(plan.pixels.tables)
        assert [s.spec.domain for s in tables.views.prefixes] == [
            f"{codec.identity}/prefix-{rung}" for rung in rungs[1:]
        ]
        steps = np.diff([*rungs, count])
        assert steps.min() >= 1
        assert levels ** int(steps.max()) <= 2**10
