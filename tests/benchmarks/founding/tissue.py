"""Tissue fields as slices of a MADE stack, and a place that can be found in any of them.

One field of 1024 x 1024 pixels a patient is all there is, so no two slices are of one
biopsy: the counts of a field are dealt at random to four slices, each of which is shifted
by a fraction of a pixel's neighbourhood, as consecutive cuts would be. Patients share no
anatomy either. The place is where epithelium is densest: the peak of the smoothed sum of
four epithelial antibodies, which are left out of the bands. Pixels are binned 4 x 4.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from tests.benchmarks.founding.stacks import SITES, SLICES, Data, Subject
from tests.benchmarks.pixel_road.fields import EPITHELIAL, read_fields, without
from tests.benchmarks.pixel_road.fields import SITES as _SITES
from tests.benchmarks.pixel_road.tumour import otsu

BIN = 4
PIXEL_MM = 0.5 / 1024 * BIN  # a field is half a millimetre wide
HELD_OUT = 2  # patients of a site
TOLERANCE_MM = 0.05
PEAK = 12.0  # pixels by which the reference is smoothed for its peak
REFERENCE = 1.0  # and for what is epithelium

assert len(SITES) == _SITES


def read(seed):
    """All fields; the seed deals counts to slices and patients to training and the rest."""
    rng = np.random.default_rng([seed, 2])
    fields = read_fields("as counted")
    smooth = [np.log1p(gaussian_filter(_binned(f.keratin), REFERENCE)) for f in fields]
    threshold = otsu(np.concatenate([image.ravel() for image in smooth]))
    narrow = without(fields, EPITHELIAL)
    order = rng.permutation(len(fields))
    seen = [0] * len(SITES)
    subjects = []
    for number in order:
        field = narrow[number]
        held_out = seen[field.site] < HELD_OUT
        seen[field.site] += 1
        subjects.append(
            _subject(rng, f"p{number:02d}", field, smooth[number] > threshold, held_out)
        )
    subjects.sort(key=lambda s: s.name)
    return Data("tissue", narrow[0].bands, tuple(subjects), PIXEL_MM, ("densest",), TOLERANCE_MM)


def _subject(rng, name, field, tumour, held_out):
    counts = _binned(field.array).astype(np.int64)
    slices, left = [], counts
    for number in range(SLICES):
        dealt = rng.binomial(left, 1 / (SLICES - number))
        left = left - dealt
        moved = shift(dealt, (*rng.uniform(-1, 1, 2), 0), order=0, mode="nearest")
        slices.append(np.minimum(moved, 255).astype(np.uint8))
    dense = gaussian_filter(_binned(field.keratin).astype(np.float64), PEAK)
    y, x = np.unravel_index(int(np.argmax(dense)), dense.shape)
    marks = {"densest": (float(x) * PIXEL_MM, float(y) * PIXEL_MM)}
    every = np.stack([tumour] * SLICES)
    return Subject(name, field.site, held_out, np.stack(slices), every, marks)


def _binned(array):
    rows, columns = array.shape[0] // BIN, array.shape[1] // BIN
    cut = array[: rows * BIN, : columns * BIN].reshape(rows, BIN, columns, BIN, *array.shape[2:])
    return cut.sum(axis=(1, 3), dtype=np.float64 if array.dtype.kind == "f" else np.int64)
