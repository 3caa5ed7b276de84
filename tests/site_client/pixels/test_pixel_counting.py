"""Keys into tables: the same tables whatever the memory, presence once per site, threads ahead."""

import threading
import tracemalloc

import numpy as np
import pytest

from common.errors import InputDataError, SketchError
from common.keys.pixel_bands import BandCodec
from common.sketching import CountSketch, SketchSpec
from common.sketching.recovery import RecoverySketch
from site_client.pixels.counting import (
    PixelCounter,
    PixelTables,
    count_slides,
    keys_of,
)
from site_client.pixels.reading import read_ahead
from site_client.pixels.statistics import survey

SPEC = SketchSpec(5, 4000, bytes(range(16)))


def stream(codec, rng, n=30_000):
    """Few frequent keys and a long tail, within a small part of all keys."""
    ranks = np.minimum(rng.zipf(1.3, n), 3000)
    return rng.permutation(codec.digits.size)[:3001].astype(np.uint64)[ranks]


@pytest.mark.parametrize("distinct", [50, 700, 1 << 20])
def test_tables_do_not_depend_on_how_much_fits_in_memory(fitted, distinct):
    codec, _ = fitted
    keys = stream(codec, np.random.default_rng(4))
    counter = PixelCounter(codec, SPEC, distinct=distinct)
    for part in np.array_split(keys, 7):
        counter.add(part)
    assert counter.pixels == keys.size
    tables = counter.tables()
    direct = PixelTables.empty(codec, SPEC)
    direct.views.update(keys)
    assert np.array_equal(tables.views.full.table, direct.views.full.table)
    assert np.array_equal(tables.views.prefix.table, direct.views.prefix.table)
    assert np.array_equal(tables.views.histogram, direct.views.histogram)
    assert counter.tables().views.histogram.sum() == 0  # empty again


@pytest.mark.parametrize("floor", [1, 10])
def test_a_site_counts_each_of_its_keys_present_once(fitted, floor):
    codec, _ = fitted
    keys = stream(codec, np.random.default_rng(5))
    counter = PixelCounter(codec, SPEC, presence_floor=floor)
    for part in np.array_split(keys, 3):
        counter.add(part)
    found = counter.tables().presence
    different, counts = np.unique(keys, return_counts=True)
    expected = CountSketch(found.spec)
    expected.update(different[counts >= floor])
    assert np.array_equal(found.table, expected.table)


def test_presence_stays_once_when_the_dictionary_overflows(fitted):
    codec, _ = fitted
    keys = stream(codec, np.random.default_rng(6))
    for floor in (1, 10):
        counter = PixelCounter(codec, SketchSpec(7, 50_000, SPEC.key), floor, distinct=100)
        for part in np.array_split(keys, 9):
            counter.add(part)
        presence = counter.tables().presence
        different, counts = np.unique(keys, return_counts=True)
        present = np.rint(presence.estimate(different))
        assert present.max() == 1
        assert np.mean(present == (counts >= floor)) > 0.995


def test_merged_tables_are_those_of_all_slides(fitted):
    codec, slides = fitted
    wide = SketchSpec(9, 20_000, SPEC.key)
    merged = PixelTables.empty(codec, wide)
    for slide in slides:
        counter = PixelCounter(codec, wide)
        count_slides([slide], counter, codec)
        merged.merge(counter.tables())
    together = PixelCounter(codec, wide)
    told = []
    pixels = count_slides(slides, together, codec, lambda *done: told.append(done))
    tables = together.tables()
    assert np.array_equal(merged.views.full.table, tables.views.full.table)
    assert merged.views.histogram.sum() == pixels
    assert told[-1] == (2, slides[2].pixels)
    found = merged.views.recover(20).keys
    own = [codec.encode(slide.image.reshape(-1, 12))[0] for slide in slides]
    sites = [sum(np.count_nonzero(keys == key) >= 10 for keys in own) for key in found]
    assert np.rint(merged.presence.estimate(found)).tolist() == sites
    assert max(sites) == 3


def test_tables_of_other_codecs_or_keys_are_not_added(fitted):
    codec, _ = fitted
    tables = PixelTables.empty(codec, SPEC)
    other = codec.as_dict() | {"bins": 8}
    for theirs in (
        PixelTables.empty(codec.from_dict(other), SPEC),
        PixelTables.empty(codec, SketchSpec(5, 4000, bytes(16))),
        PixelTables.empty(codec, SketchSpec(5, 4001, SPEC.key)),
    ):
        with pytest.raises(SketchError):
            tables.merge(theirs)
    domains = {tables.presence.spec.domain, tables.views.full.spec.domain}
    assert len(domains | {tables.views.prefix.spec.domain}) == 3


def test_what_cannot_be_counted_is_refused(fitted):
    codec, slides = fitted
    with pytest.raises(SketchError, match="cannot query"):
        PixelCounter(codec, SPEC.without_key())
    with pytest.raises(SketchError, match="presence_floor"):
        PixelCounter(codec, SPEC, presence_floor=0)
    with pytest.raises(InputDataError, match="not keys of this codec"):
        PixelCounter(codec, SPEC).add(np.array([codec.digits.size], np.uint64))
    slide = type(slides[0])(slides[0].image, tuple(reversed(slides[0].bands)))
    with pytest.raises(InputDataError, match="other bands"):
        next(keys_of(slide, codec))


def test_the_eight_components_of_the_paper_are_counted_by_four_and_six_digits(fitted):
    codec, _ = fitted
    eight = codec.as_dict() | {"bins": 22, "low": [-9] * 8, "high": [9] * 8}
    weights = np.resize(codec.projection.weights, (8, 12)).tolist()
    eight["projection"] = codec.projection.as_dict() | {"weights": weights}
    views = PixelTables.empty(codec.from_dict(eight), SPEC).views
    assert views.histogram.size == 22**4
    expected = RecoverySketch(views.full.spec, [22] * 8, prefix_digits=6, histogram_digits=4)
    assert views.prefix.spec == expected.prefix.spec


def test_a_slide_can_also_be_read_as_all_of_its_bands(fitted):
    _, slides = fitted
    codec = BandCodec.fit(survey(slides[0]))
    keys = np.concatenate([keys for keys, _ in keys_of(slides[0], codec)])
    assert np.array_equal(keys, codec.encode(slides[0].image.reshape(-1, 12))[0])


def test_keys_come_in_order_whatever_the_number_of_threads(fitted):
    codec, slides = fitted
    expected = codec.encode(slides[0].image.reshape(-1, 12))
    for threads in (1, 3):
        told = []
        parts = list(keys_of(slides[0], codec, told.append, threads))
        assert np.array_equal(np.concatenate([keys for keys, _ in parts]), expected[0])
        assert np.array_equal(np.concatenate([mask for _, mask in parts]), expected[1])
        assert told == list(range(1000, 12_001, 1000))
    before = threading.active_count()
    some = keys_of(slides[0], codec, threads=2)
    next(some)
    some.close()
    assert threading.active_count() == before


def test_counting_needs_no_more_memory_for_a_longer_slide(fitted, memory_slide):
    codec, slides = fitted
    peaks = []
    for repeats in (4, 40):

        class Long(memory_slide):
            def chunks(self, repeats=repeats):
                for _ in range(repeats):
                    yield from super().chunks()

        counter = PixelCounter(codec, SPEC, distinct=1000)
        tracemalloc.start()
        count_slides([Long(slides[0].image)], counter, codec)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_reading_ahead_keeps_order_raises_in_turn_and_stops_when_left():
    assert list(read_ahead(range(100))) == list(range(100))

    def broken():
        yield 1
        raise InputDataError("the disk is gone")

    items = read_ahead(broken())
    assert next(items) == 1
    with pytest.raises(InputDataError, match="disk is gone"):
        next(items)

    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    items = read_ahead(endless())
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
