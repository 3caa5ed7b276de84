"""A run of kind ``pixels`` in memory, by the same functions that sites call."""

import numpy as np

from common.keys.pixel_agreement import fit_ranges, fit_survey
from common.plan import Pixels
from common.sketching import SketchSpec
from site_client.pixels.counting import PixelCounter, PixelTables, count_slides, keys_of
from site_client.pixels.statistics import component_ranges, survey
from tests.benchmarks.pixel_road.fields import SITES

ROWS = 16
COLUMNS = 200_000
TOP = 20_000


def plan_of(fields, codec):
    """The plan: tables of 16 x 200,000, the 20,000 most frequent keys, else its defaults."""
    dimensions = {"rows": ROWS, "columns": COLUMNS, "top": TOP, "codec": codec}
    return Pixels(bands=fields[0].bands, **dimensions)


def fit(fields, asked):
    """What a federation freezes before anything is sketched."""
    surveys = [survey(field) for field in fields]
    widest = fit_survey(asked, sum(surveys[1:], surveys[0]))
    if asked.codec == "all-bands":
        return widest
    ranges = [component_ranges(field, widest.projection) for field in fields]
    return fit_ranges(asked, widest, sum(ranges[1:], ranges[0]))


def encode(fields, codec):
    """Keys of every field's foreground, and which pixels are foreground."""
    out = []
    for field in fields:
        parts = list(keys_of(field, codec))
        keys = np.concatenate([keys for keys, _ in parts])
        out.append((keys, np.concatenate([mask for _, mask in parts]).reshape(field.shape[:2])))
    return out


def pool(encoded):
    """All keys and their exact counts, most frequent first."""
    keys, counts = np.unique(np.concatenate([keys for keys, _ in encoded]), return_counts=True)
    order = np.lexsort((keys, -counts))
    return keys[order], counts[order]


def federate(fields, codec, asked, seed):
    """Merged tables of all sites under a key made from the seed."""
    key = np.random.default_rng(seed).bytes(16)
    spec = SketchSpec(asked.rows, asked.columns, key)
    merged = PixelTables.empty(codec, spec)
    for site in range(SITES):
        counter = PixelCounter(codec, spec, asked.presence_floor)
        count_slides([field for field in fields if field.site == site], counter, codec)
        merged.merge(counter.tables())
    return merged
