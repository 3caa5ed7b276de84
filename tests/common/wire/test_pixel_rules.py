"""Each rule about pixels, by a record that breaks exactly that one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RefusedError
from common.keys.pixel_statistics import INTENSITY_BINS, RANGE_BINS, intensity_bins
from common.plan import parse_plan
from common.wire.envelope import Envelope
from common.wire.expected import Expected, RecordFloors
from common.wire.pixel_rules import MAX_GRAM, most_bytes
from common.wire.records import GroupCounts, HeavyHitters, PixelSketches, PixelStatistics
from common.wire.rules import ANSWERS, check_record

BANDS, COMPONENTS, BINS, ROWS, COLUMNS = 4, 3, 5, 3, 64
CODEC, KEY_ID, BOOK = "c" * 64, "0123456789abcdef", "b" * 64
PLAN = parse_plan(
    {
        "name": "p",
        "kind": "pixels",
        "seed": 1,
        "pixels": {
            "bands": [f"b{i}" for i in range(BANDS)],
            "components": COMPONENTS,
            "bins": BINS,
            "rows": ROWS,
            "columns": COLUMNS,
            "top": 6,
            "key_pixels": 50,
            "min_slides": 2,
            "min_pixels": 100,
            "presence_floor": 4,
        },
        "limits": {"min_sketch_fill": 0.1, "max_cells_per_input": 2.0},
    }
)
EMBED = parse_plan(
    {
        "name": "e",
        "kind": "embed",
        "seed": 1,
        "embed": {
            "codec": CODEC,
            "codebook": BOOK,
            "groups": ["other", "tumour"],
            "min_slides": 2,
            "min_pixels": 100,
            "group_pixels": 20,
        },
    }
)
COMMON = {"site": "north", "run": "run-1", "round": 1}


def expected(phase, plan=PLAN):
    return Expected(
        **COMMON,
        phase=phase,
        plan=plan,
        shapes={},
        floors=RecordFloors.of(plan),
        key_id=KEY_ID,
        codec=CODEC,
    )


def about(plan=PLAN):
    return COMMON | {"plan_fingerprint": plan.fingerprint}


def survey_of(pixels):
    """What an honest site says of pixels uint16[n, bands]."""
    wide = pixels.astype(np.int64)
    squared = np.square(wide).sum(axis=1).astype(np.float64)
    histogram = np.bincount(intensity_bins(squared), minlength=INTENSITY_BINS)
    record = PixelStatistics(**about(), subject="survey", codec=CODEC, slides=2, pixels=len(pixels))
    return Envelope(record, {"histogram": histogram, "gram": wide.T @ wide})


@pytest.fixture
def survey():
    return survey_of(np.random.default_rng(1).integers(0, 65536, (200, BANDS)).astype(np.uint16))


@pytest.fixture
def ranges():
    histogram = np.zeros((COMPONENTS, RANGE_BINS), np.int64)
    histogram[:, 7] = 200
    record = PixelStatistics(**about(), subject="ranges", codec=CODEC, slides=2, pixels=200)
    return Envelope(record, {"histogram": histogram})


@pytest.fixture
def sketches():
    rng = np.random.default_rng(2)
    table = np.zeros((ROWS, COLUMNS), np.int64)
    for row in table:
        np.add.at(row, rng.integers(0, COLUMNS, 200), rng.choice([-1, 1], 200))
    presence = np.zeros_like(table)
    presence[:, :9] = 1
    counts = np.zeros(BINS, np.int64)
    counts[2] = 200
    record = PixelSketches(
        **about(),
        rows=ROWS,
        columns=COLUMNS,
        key_id=KEY_ID,
        codec=CODEC,
        slides=2,
        pixels=200,
    )
    arrays = {"full": table, "prefix": table, "presence": presence, "prefix_counts": counts}
    return Envelope(record, arrays)


@pytest.fixture
def hitters():
    record = HeavyHitters(**about(), key_id=KEY_ID, codec=CODEC, threshold=60)
    keys = np.array([3, 20, 124], np.uint64).view(np.int64)
    return Envelope(record, {"keys": keys, "counts": np.array([60, 61, 900], np.int64)})


@pytest.fixture
def groups():
    record = GroupCounts(**about(EMBED), codec=CODEC, codebook=BOOK, slides=2, pixels=100)
    return Envelope(record, {"counts": np.array([60, 0, 40], np.int64)})


def bent(envelope, arrays=None, **fields):
    record = envelope.record.model_copy(update=fields)
    return Envelope(record, dict(envelope.arrays) | (arrays or {}))


def refuse(envelope, phase, field, match=None, plan=PLAN):
    with pytest.raises(RefusedError, match=match) as caught:
        check_record(envelope, expected(phase, plan))
    assert caught.value.field == field


def test_honest_records_pass(survey, ranges, sketches, hitters, groups):
    check_record(survey, expected("survey"))
    check_record(ranges, expected("range"))
    check_record(sketches, expected("sketch"))
    check_record(hitters, expected("recover"))
    check_record(groups, expected("embed", EMBED))


def test_each_phase_is_answered_by_its_own_record_and_a_report(survey, sketches, hitters):
    kinds = {phase: [kind.__name__ for kind in ANSWERS[phase]] for phase in ANSWERS}
    assert kinds["survey"] == kinds["range"] == ["PixelStatistics", "RoundReport"]
    assert kinds["sketch"] == ["PixelSketches", "RoundReport"]
    assert kinds["recover"] == ["HeavyHitters", "RoundReport"]
    assert kinds["embed"] == ["GroupCounts", "RoundReport"]
    refuse(survey, "sketch", "record_type")
    refuse(sketches, "recover", "record_type")
    refuse(hitters, "train", "record_type")
    refuse(survey, "begin", "record_type")


@pytest.mark.parametrize("phase", ["survey", "range", "sketch", "embed"])
def test_what_rests_on_too_few_slides_or_pixels_is_refused(phase, survey, ranges, sketches, groups):
    plan = EMBED if phase == "embed" else PLAN
    envelope = {"survey": survey, "range": ranges, "sketch": sketches, "embed": groups}[phase]
    refuse(bent(envelope, slides=1), phase, "slides", "at least 2", plan)
    refuse(bent(envelope, slides=10**7), phase, "slides", "at most", plan)
    refuse(bent(envelope, pixels=99), phase, "pixels", "at least 100", plan)
    refuse(bent(envelope, pixels=2**41), phase, "pixels", "at most", plan)


@pytest.mark.parametrize("phase", ["survey", "range", "sketch", "recover", "embed"])
def test_a_record_of_another_codec_is_refused(phase, survey, ranges, sketches, hitters, groups):
    kinds = {"survey": survey, "range": ranges, "sketch": sketches, "recover": hitters}
    envelope = kinds.get(phase, groups)
    plan = EMBED if phase == "embed" else PLAN
    refuse(bent(envelope, codec="d" * 64), phase, "codec", plan=plan)


@pytest.mark.parametrize("phase", ["sketch", "recover"])
def test_a_record_under_another_key_is_refused(phase, sketches, hitters):
    envelope = sketches if phase == "sketch" else hitters
    refuse(bent(envelope, key_id="f" * 16), phase, "key_id")


# Sums.


def test_statistics_of_another_subject_are_refused(survey, ranges):
    refuse(survey, "range", "subject")
    refuse(ranges, "survey", "subject")


def test_statistics_beside_which_another_array_travels_are_refused(survey, ranges):
    extra = {"thumbnail": np.zeros(9, np.int64)}
    refuse(bent(survey, extra), "survey", "arrays", "3 arrays")
    refuse(bent(ranges, extra), "range", "arrays", "2 arrays")
    without = Envelope(survey.record, {"gram": survey.arrays["gram"]})
    refuse(without, "survey", "arrays")


def test_a_histogram_that_does_not_add_up_is_refused(survey, ranges):
    for envelope, phase in ((survey, "survey"), (ranges, "range")):
        histogram = envelope.arrays["histogram"].copy()
        histogram.reshape(-1)[7] += 1
        refuse(bent(envelope, {"histogram": histogram}), phase, "histogram", "another sum")


def test_a_histogram_with_a_negative_number_is_refused(survey, ranges):
    for envelope, phase in ((survey, "survey"), (ranges, "range")):
        histogram = envelope.arrays["histogram"].copy()
        histogram.reshape(-1)[0] = -1
        histogram.reshape(-1)[1] += 1
        refuse(bent(envelope, {"histogram": histogram}), phase, "histogram", "negative")


def test_sums_of_counts_do_not_wrap_around(survey):
    histogram = np.zeros(INTENSITY_BINS, np.int64)
    histogram[:4] = 2**62
    histogram[4] = 200  # modulo 2**64 the sum is right
    refuse(bent(survey, {"histogram": histogram}), "survey", "histogram", "another sum")


def test_statistics_of_another_shape_or_type_are_refused(survey, ranges):
    gram = survey.arrays["gram"]
    refuse(bent(survey, {"gram": gram[:3, :3]}), "survey", "gram", r"int64\[3, 3\]")
    refuse(bent(survey, {"gram": gram.astype(np.float32)}), "survey", "gram", "float32")
    poisoned = gram.astype(np.float32)
    poisoned[0, 0] = np.nan
    refuse(bent(survey, {"gram": poisoned}), "survey", "gram", "float32")
    wide = np.zeros((COMPONENTS, RANGE_BINS + 1), np.int64)
    refuse(bent(ranges, {"histogram": wide}), "range", "histogram")


def test_a_gram_matrix_that_is_not_symmetric_is_refused(survey):
    gram = survey.arrays["gram"].copy()
    gram[0, 1] -= 1
    refuse(bent(survey, {"gram": gram}), "survey", "gram", "symmetric")


def test_a_gram_matrix_beyond_what_so_many_pixels_can_have_is_refused(survey):
    gram = survey.arrays["gram"].copy()
    gram[2, 2] = 200 * 65535**2 + 1
    refuse(bent(survey, {"gram": gram}), "survey", "gram", "largest squared")
    gram[2, 2] = 2**63 - 1
    refuse(bent(survey, {"gram": gram}, slides=64, pixels=2**40), "survey", "histogram")
    assert MAX_GRAM * 8 <= 2**63


def test_a_gram_matrix_that_no_inner_products_have_is_refused(survey):
    gram = survey.arrays["gram"].copy()
    gram[0, 1] = gram[1, 0] = int(np.sqrt(float(gram[0, 0]) * float(gram[1, 1]))) + 10
    refuse(bent(survey, {"gram": gram}), "survey", "gram", "inner products")


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_gram_matrix_brighter_or_darker_than_its_histogram_is_refused(survey, factor):
    gram = (survey.arrays["gram"] * factor).astype(np.int64)
    gram = np.minimum(gram, gram.T)
    refuse(bent(survey, {"gram": gram}), "survey", "gram")


@settings(deadline=None, max_examples=40)
@given(st.integers(100, 400), st.integers(1, 65535), st.integers(0, 2**32 - 1), st.booleans())
def test_whatever_pixels_a_site_has_their_sums_pass(count, brightest, seed, dark):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, brightest + 1, (count, BANDS)).astype(np.uint16)
    if dark:
        pixels[: count // 2] = 0
    check_record(survey_of(pixels), expected("survey"))


# Tables.


@pytest.mark.parametrize("name", ["full", "prefix", "presence"])
def test_a_table_of_another_shape_or_type_is_refused(sketches, name):
    table = sketches.arrays[name]
    refuse(bent(sketches, {name: table[:, :9]}), "sketch", name, r"int64\[3, 9\]")
    refuse(bent(sketches, {name: table.astype(np.float32)}), "sketch", name, "float32")
    refuse(bent(sketches, columns=9), "sketch", "rows, columns")


@pytest.mark.parametrize("cell", [201, -201, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("name", ["full", "prefix", "presence"])
def test_a_cell_larger_than_all_pixels_is_refused(sketches, name, cell):
    table = sketches.arrays[name].copy()
    table[1, 1] = cell
    refuse(bent(sketches, {name: table}), "sketch", name, "larger cell")


@pytest.mark.parametrize("name", ["full", "prefix", "presence"])
def test_a_row_that_weighs_more_than_all_pixels_is_refused(sketches, name):
    table = sketches.arrays[name].copy()
    table[0] = 7
    refuse(bent(sketches, {name: table}), "sketch", name, "larger sum")


def test_a_key_counted_present_more_often_than_its_floor_allows_is_refused(sketches):
    presence = np.zeros((ROWS, COLUMNS), np.int64)
    presence[:, :50] = 1  # 200 pixels, 4 of each key: 50 keys
    check_record(bent(sketches, {"presence": presence}), expected("sketch"))
    presence[0, 50] = 1
    refuse(bent(sketches, {"presence": presence}), "sketch", "presence", "larger sum")


def test_a_table_that_is_nearly_empty_is_refused(sketches):
    table = np.zeros((ROWS, COLUMNS), np.int64)
    table[:, :2] = 50
    refuse(bent(sketches, {"full": table}), "sketch", "full", "sparser")


def test_a_table_with_too_many_cells_per_pixel_is_refused(sketches):
    limits = PLAN.limits.model_copy(update={"max_cells_per_input": 0.9})
    plan = PLAN.model_copy(update={"limits": limits})
    fields = {"plan_fingerprint": plan.fingerprint}
    refuse(bent(sketches, **fields), "sketch", "full", "cells per key", plan)


def test_prefix_counts_that_are_not_those_of_the_pixels_are_refused(sketches):
    counts = sketches.arrays["prefix_counts"]
    refuse(bent(sketches, {"prefix_counts": counts + 1}), "sketch", "prefix_counts", "another sum")
    negative = counts.copy()
    negative[:2] = (-1, 1)
    refuse(bent(sketches, {"prefix_counts": negative}), "sketch", "prefix_counts", "negative")
    refuse(bent(sketches, {"prefix_counts": counts[:4]}), "sketch", "prefix_counts", "int64")


def test_tables_beside_which_another_array_travels_are_refused(sketches):
    extra = {"keys": np.zeros(9, np.int64)}
    refuse(bent(sketches, extra), "sketch", "arrays", "5 arrays")


def test_the_size_that_a_plan_asks_for_is_known_before_it_starts():
    assert most_bytes(PLAN.pixels) >= 8 * (3 * ROWS * COLUMNS + BINS)


# Keys that are named.


def keys_of(*values):
    return np.array(values, np.uint64).view(np.int64)


def test_keys_out_of_order_or_twice_are_refused(hitters):
    refuse(bent(hitters, {"keys": keys_of(20, 3, 124)}), "recover", "keys", "ascending")
    refuse(bent(hitters, {"keys": keys_of(3, 3, 124)}), "recover", "keys", "ascending")


@pytest.mark.parametrize("key", [BINS**COMPONENTS, 2**63, 2**64 - 1])
def test_a_key_that_the_codec_does_not_have_is_refused(hitters, key):
    refuse(bent(hitters, {"keys": keys_of(3, 20, key)}), "recover", "keys", "larger")


@pytest.mark.parametrize("count", [59, 0, -1])
def test_a_key_rarer_than_the_threshold_is_refused(hitters, count):
    counts = np.array([900, count, 61], np.int64)
    refuse(bent(hitters, {"counts": counts}), "recover", "counts", "at least 60")


def test_a_threshold_below_the_plans_is_refused(hitters):
    refuse(bent(hitters, threshold=49), "recover", "threshold", "at least 50")


def test_more_keys_than_the_plan_asks_for_are_refused(hitters):
    many = {"keys": keys_of(*range(7)), "counts": np.full(7, 99, np.int64)}
    refuse(bent(hitters, many), "recover", "keys", "at most 6")


def test_keys_and_counts_of_different_lengths_or_types_are_refused(hitters):
    refuse(bent(hitters, {"counts": np.full(2, 99, np.int64)}), "recover", "counts")
    refuse(bent(hitters, {"counts": np.full(3, 99, np.float32)}), "recover", "counts")
    refuse(bent(hitters, {"keys": np.zeros(3, np.float32)}), "recover", "keys")
    refuse(bent(hitters, {"sites": keys_of(2, 2, 2)}), "recover", "arrays")


def test_a_site_may_name_no_key_at_all(hitters):
    none = {"keys": keys_of(), "counts": np.zeros(0, np.int64)}
    check_record(bent(hitters, none), expected("recover"))


# Groups.


def test_counts_of_other_groups_than_the_plans_are_refused(groups):
    counts = groups.arrays["counts"]
    refuse(bent(groups, {"counts": counts[:2]}), "embed", "counts", "int64", EMBED)
    refuse(bent(groups, codebook="e" * 64), "embed", "codebook", plan=EMBED)


def test_a_group_of_a_few_pixels_is_refused(groups):
    few = np.array([60, 19, 21], np.int64)
    refuse(bent(groups, {"counts": few}), "embed", "counts", "0 or at least 20", EMBED)
    strict = replace(
        expected("embed", EMBED), floors=replace(RecordFloors.of(EMBED), group_pixels=41)
    )
    with pytest.raises(RefusedError, match="0 or at least 41"):
        check_record(groups, strict)


def test_more_pixels_in_groups_than_there_are_is_refused(groups):
    counts = np.array([60, 21, 40], np.int64)
    refuse(bent(groups, {"counts": counts}), "embed", "counts", "each pixel once", EMBED)
