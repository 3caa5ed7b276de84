"""Codecs and tables of pixels are believed only if they follow from sums that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.keys.pixel_agreement import codec_text
from common.sums.addition import Group, add_records, decode_sum, encode_sum, sum_digest
from common.sums.pixels import TOLERANCE
from common.sums.summand import Summand
from common.sums.tags import add_tags
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, pack, unpack
from common.wire.transport import sum_part
from site_client.worker import pixels as pixels_module
from tests.aggregated import as_if_of
from tests.site_client.worker.asking import ledger_of, refusals
from tests.site_client.worker.conftest import (
    answer,
    code,
    instead,
    tell,
)

SKETCHES = "PixelSketches"


@pytest.fixture
def opened(slides, tables, monkeypatch):
    """Every time that the slides are opened after the tables were made."""
    seen = []
    honest = pixels_module.Slides.open

    def noted(self, what):
        seen.append(what)
        return honest(self, what)

    monkeypatch.setattr(pixels_module.Slides, "open", noted)
    return seen


def recover(site, codec, data=None, **changes):
    """The order of the last round, with ``data`` as what the tables came to."""
    past = site.past()
    sums = dict(past.sums) if data is None else past.sums | {3: data}
    return site.order(4, "recover", codec=codec_text(codec), sums=sums, **changes)


def doubled(data):
    """One site's tables, counts and tag, twice, as the sum of two sites."""
    total = decode_sum(data)
    group = total.groups[SKETCHES]
    summand = Summand(
        {name: 2 * count for name, count in group.summand.counts.items()},
        {name: 2 * array for name, array in group.summand.arrays.items()},
    )
    bent = Group(("east", "north"), summand, add_tags([group.tag, group.tag]))
    return encode_sum(replace(total, groups={SKETCHES: bent}))


def test_a_sites_own_tables_sent_back_as_everybodys_name_nothing(slides, codec, tables, opened):
    own = encode_sum(add_records("run-1", 3, {"north": [tables]}))
    for data in (own, doubled(own)):
        order = recover(slides, codec, data)
        assert code(answer(slides, order)) is ReplyCode.FORGED_SUM
        refused = refusals(slides)[-1]
        assert (refused.phase, refused.round) == ("recover", 4)
        assert refused.code == ReplyCode.FORGED_SUM
    assert opened == []
    assert not (slides.folder.worker / "codecs").exists()
    found = answer(slides, recover(slides, codec))["HeavyHitters"]
    assert found.arrays["keys"].size >= 4, "the honest sum is taken afterwards"


def test_one_more_pixel_in_one_cell_is_refused(slides, codec, opened):
    metadata, arrays = unpack(slides.past().sums[3])
    for name in arrays:
        bent = {n: a.copy() for n, a in arrays.items()}
        bent[name].reshape(-1)[0] += 1
        order = recover(slides, codec, pack(metadata, bent))
        assert code(answer(slides, order)) is ReplyCode.FORGED_SUM
    assert opened == []


def test_keys_are_named_from_the_verified_sum_and_from_no_other(slides, codec, tables, opened):
    """The same order with another sum beside it: neither's keys, and then the honest ones'."""
    honest = slides.past().sums[3]
    sent = [Envelope(tables.record, {n: 5 * a for n, a in tables.arrays.items()})]
    other = instead(slides, 3, {"north": [tables], "east": as_if_of("east", sent)})
    named = sum_digest(honest)
    swapped = recover(slides, codec, other, sum=named)
    assert code(answer(slides, swapped)) is ReplyCode.FORGED_SUM
    assert opened == []
    found = answer(slides, recover(slides, codec, honest, sum=named))["HeavyHitters"]
    assert found.arrays["counts"].sum() <= 2 * tables.record.pixels


def test_a_sum_of_tables_that_are_not_the_plans_is_refused_though_its_tags_hold(
    slides, codec, tables, opened
):
    good = dict(tables.arrays)
    bad = [
        {name: array for name, array in good.items() if name != "presence"},
        good | {"more": good["full"]},
        good | {"full": good["full"][:, :9]},
        good | {"prefix_counts": -good["prefix_counts"]},
    ]
    for arrays in bad:
        sent = [Envelope(tables.record, arrays)]
        data = instead(slides, 3, {"north": sent, "east": as_if_of("east", sent)})
        assert code(answer(slides, recover(slides, codec, data))) is ReplyCode.FORGED_SUM
    assert opened == []


def test_what_is_no_sum_of_whole_numbers_is_refused(slides, codec, opened):
    metadata, arrays = unpack(slides.past().sums[3])
    name = f"{SKETCHES}/prefix"
    bad = [
        b"",
        b"junk",
        pack(metadata, {}),
        pack(metadata, arrays | {name: arrays[name].astype(np.float32)}),
        pack(metadata, arrays | {name: np.full(arrays[name].shape, np.nan, np.float32)}),
        pack(metadata, arrays | {"weights": arrays[name]}),
    ]
    for data in bad:
        assert code(answer(slides, recover(slides, codec, data))) is ReplyCode.FORGED_SUM
    assert opened == []


def test_tables_without_their_sum_are_asked_for_and_the_round_is_then_answered(
    slides, codec, opened
):
    """Merged tables are not kept on the disk: whoever asks for keys brings them."""
    past = slides.past()
    without = {number: past.sums[number] for number in (1, 2)}
    order = slides.order(
        4, "recover", codec=codec_text(codec), sums=without, sum=sum_digest(past.sums[3])
    )
    assert code(answer(slides, order)) is ReplyCode.BEHIND
    assert opened == []
    assert "HeavyHitters" in answer(slides, recover(slides, codec))


def test_a_sum_that_came_too_early_is_not_looked_at(slides, codec):
    early = {sum_part(3): b"the sum of a round that is not over"}
    order = slides.order(3, "sketch", codec=codec_text(codec), beside=early)
    assert SKETCHES in answer(slides, order)


# The codec.


def moved(codec, by):
    """The same codec, its first direction off by so many units of fixed point."""
    weights = codec.projection.weights.copy()
    weights.reshape(-1)[0] += by
    return replace(codec, projection=replace(codec.projection, weights=weights))


def test_a_codec_that_does_not_follow_from_the_survey_is_refused(slides, widest):
    counted = len(ledger_of(slides))
    scaled = replace(widest.projection, floor=widest.projection.floor + 1)
    for bent in (
        moved(widest, 2 * TOLERANCE),
        replace(widest, projection=scaled),
        replace(widest, high=tuple(end - 1 for end in widest.high)),
    ):
        order = slides.order(2, "range", codec=codec_text(bent))
        assert code(answer(slides, order)) is ReplyCode.FORGED_SUM
        refused = refusals(slides)[-1]
        assert (refused.phase, refused.detail.field[:5]) == ("range", "codec")
    assert len(ledger_of(slides)) == counted + 6, "a refusal and its number each, nothing else"
    honest = slides.order(2, "range", codec=codec_text(widest))
    assert "PixelStatistics" in answer(slides, honest)


def test_a_codec_whose_last_bits_are_another_processors_is_taken(slides, widest):
    order = slides.order(2, "range", codec=codec_text(moved(widest, 1)))
    assert "PixelStatistics" in answer(slides, order)


def test_ranges_that_do_not_follow_from_the_sums_are_refused(slides, widest, codec):
    for bent in (
        widest,
        replace(codec, high=tuple(end + 1 for end in codec.high)),
        replace(codec, low=tuple(end - 1 for end in codec.low)),
    ):
        order = slides.order(3, "sketch", codec=codec_text(bent))
        assert code(answer(slides, order)) is ReplyCode.FORGED_SUM
    assert SKETCHES in answer(slides, slides.order(3, "sketch", codec=codec_text(codec)))


def test_a_survey_that_was_altered_makes_no_codec(slides, widest):
    metadata, arrays = unpack(slides.past().sums[1])
    gram = arrays["PixelStatistics/gram"].copy()
    gram[0, 0] += 1
    bent = pack(metadata, arrays | {"PixelStatistics/gram": gram})
    order = slides.order(2, "range", codec=codec_text(widest), sums={1: bent})
    assert code(answer(slides, order)) is ReplyCode.FORGED_SUM
    assert "PixelStatistics" in answer(slides, slides.order(2, "range", codec=codec_text(widest)))


def test_a_site_that_came_late_goes_on_from_the_sums_and_gives_the_same_tables(
    slides, codec, make_site, tmp_path
):
    straight = answer(slides, slides.order(3, "sketch", codec=codec_text(codec)))
    (slides.folder.worker / "state" / "run-1" / "chain.safetensors").unlink()
    tell(slides, straight)
    late = answer(slides, recover(slides, codec))
    assert late["RoundReport"].record.link == slides.past().links[3]
    assert late["HeavyHitters"].arrays["keys"].size >= 4
