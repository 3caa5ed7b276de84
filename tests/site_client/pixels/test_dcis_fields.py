"""The paper's pipeline on real multiplex images of breast tissue, split into three sites.

18 fields of view, one patient each, 35 of 41 channels of the MIBI-TOF set of Risom
et al., Cell 2022. They are not part of the repository.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from common.keys.pixel_projection import PixelProjection
from common.keys.pixels import PixelCodec
from common.sketching import SketchSpec
from site_client.pixels.counting import PixelCounter, PixelTables, count_slides
from site_client.pixels.encode import PixelEncoder
from site_client.pixels.release import ReleaseRule, release
from site_client.pixels.slides import Slide, open_slide
from site_client.pixels.statistics import component_ranges, survey

FIELDS = Path(__file__).parents[4] / "shared" / "data" / "dcis_mibi"
LEFT_OUT = {"Nuc", "P", "PD1", "FOXP3", "HIF1a", "CD56"}
KEY = bytes(range(16))

pytestmark = pytest.mark.skipif(
    not FIELDS.is_dir(), reason="needs the DCIS multiplex fields beside the checkout"
)


class Pooled(NamedTuple):
    """What no site could know: all keys, most frequent first, and their exact counts."""

    keys: np.ndarray
    counts: np.ndarray


def sites(fields_per_site):
    """Slides of three sites, by patient."""
    with (FIELDS / "fields.csv").open(encoding="utf-8") as file:
        fields = sorted(csv.DictReader(file), key=lambda row: row["patient"])
    assert len({row["patient"] for row in fields}) == len(fields)
    first = sorted(path.stem for path in (FIELDS / fields[0]["field"]).glob("*.tif"))
    bands = [name for name in first if name not in LEFT_OUT]
    assert len(bands) == 35
    of_site = [fields[site::3][:fields_per_site] for site in range(3)]
    return [[open_slide(FIELDS / row["field"], bands) for row in rows] for rows in of_site]


def fit(federation):
    """Survey, range: what a federation freezes before anything is sketched."""
    surveys = [survey(slide) for site in federation for slide in site]
    projection = PixelProjection.fit(sum(surveys[1:], surveys[0]))
    ranges = [component_ranges(slide, projection) for site in federation for slide in site]
    return PixelCodec.fit(projection, sum(ranges[1:], ranges[0]))


def federate(federation, codec, spec):
    merged = PixelTables.empty(codec, spec)
    for site in federation:
        counter = PixelCounter(codec, spec)
        count_slides(site, counter, codec)
        merged.merge(counter.tables())
    return merged


def pool(federation, codec):
    keys = [codec_keys(slide, codec) for site in federation for slide in site]
    different, counts = np.unique(np.concatenate(keys), return_counts=True)
    order = np.lexsort((different, -counts))
    return Pooled(different[order], counts[order])


def codec_keys(slide: Slide, codec):
    encoder = PixelEncoder(codec)
    return np.concatenate([encoder.encode(chunk)[0] for chunk in slide.chunks()])


def check_release(named, pooled):
    """Nothing that is clearly rarer than the rule says is named."""
    exact = dict(zip(pooled.keys.tolist(), pooled.counts.tolist(), strict=True))
    true = np.array([exact[key] for key in named.keys.tolist()])
    assert named.keys.size > 0
    assert true.min() >= 50 - 2 * named.sigma
    assert np.mean(true >= 50) > 0.99
    return true.sum() / pooled.counts.sum()


def test_one_field_at_each_of_three_sites_give_back_their_frequent_keys():
    federation = sites(1)
    codec = fit(federation)
    pooled = pool(federation, codec)
    merged = federate(federation, codec, SketchSpec(16, 50_000, KEY))
    frequent = pooled.keys[pooled.counts >= 50]
    found = merged.views.recover(frequent.size, floor=25).keys
    assert np.isin(frequent, found).mean() >= 0.97
    check_release(release(merged, ReleaseRule()), pooled)
    # The definition, on real pixels; the fast way must equal it.
    chunk = next(federation[0][0].chunks(20_000))
    assert np.array_equal(PixelEncoder(codec).encode(chunk)[0], codec.encode(chunk)[0])


@pytest.mark.slow
def test_the_top_20000_keys_of_18_patients_cover_the_pixels_and_come_back_from_merged_tables():
    federation = sites(6)
    codec = fit(federation)
    pooled = pool(federation, codec)
    covered = pooled.counts[:20_000].sum() / pooled.counts.sum()
    assert covered >= 0.85
    merged = federate(federation, codec, SketchSpec(16, 200_000, KEY))
    found = merged.views.recover(20_000, floor=5).keys
    recall = np.isin(pooled.keys[:20_000], found).mean()
    assert recall >= 0.99
    named = release(merged, ReleaseRule())
    share = check_release(named, pooled)
    assert share >= 0.8
