"""A made-up organ in 12 bands: consecutive slices of different subjects, with known truth.

An ellipse of stroma on an empty slide holds a large, a small and a hook-shaped tumour, and
inflamed spots at random places. A pixel is a cell of its region or, one time in three, of
another; cells are a few pixels wide and a count is Poisson of a signature times the site's
staining. No band belongs to one tissue alone: tumour and inflammation share the bright
bands and differ in how they go together.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from tests.benchmarks.founding.stacks import SITES, SLICES, Data, Subject

SIDE = 112  # pixels
PIXEL_MM = 1.0
BANDS = tuple(f"marker-{k:02d}" for k in range(12))
LANDMARKS = ("large", "small", "hook")
PLACES = np.array([[-14.0, -10.0], [20.0, 12.0], [-8.0, 22.0]])  # mm from the organ's middle
TOLERANCE_MM = 3.0
STAINING = 0.15  # spread of the logarithm of each band's brightness between sites
TRAINED, HELD_OUT = 6, 3  # subjects of a site
EMPTY, STROMA, TUMOUR, INFLAMED = range(4)
_SIGNATURE_SEED = 20


def read(seed, trained=TRAINED, held_out=HELD_OUT):
    """All subjects of three sites; another seed makes other subjects and other staining."""
    rng = np.random.default_rng([seed, 1])
    signature = _signatures()
    subjects = []
    for site in range(len(SITES)):
        gain = np.exp(rng.normal(0, STAINING, len(BANDS))) * (0.7, 1.0, 1.4)[site]
        for number in range(trained + held_out):
            name = f"{SITES[site][-1]}{number:02d}"
            subjects.append(_subject(rng, name, site, number >= trained, signature * gain))
    return Data("scene", BANDS, tuple(subjects), PIXEL_MM, LANDMARKS, TOLERANCE_MM)


def _signatures():
    """Mean counts of each tissue in each band, the same at all sites."""
    rng = np.random.default_rng(_SIGNATURE_SEED)
    signature = rng.uniform(0.2, 1.2, (4, len(BANDS)))
    signature[EMPTY] = 0.05
    signature[TUMOUR, :6] += (3.0, 3.0, 0.0, 3.0, 0.0, 1.0)
    signature[INFLAMED, :6] += (3.0, 0.0, 3.0, 0.0, 3.0, 1.0)
    signature[STROMA, 6:8] += 1.5
    return signature


def _subject(rng, name, site, held_out, rates):
    turn = np.deg2rad(rng.uniform(-15, 15))
    matrix = rng.uniform(0.85, 1.15) * np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    middle = SIDE / 2 + rng.uniform(-12, 12, 2)
    bend = np.stack([gaussian_filter(rng.normal(size=(SIDE, SIDE)), 14) for _ in range(2)])
    bend *= 3.0 / bend.std()
    spots = rng.uniform(-30, 30, (6, 2))
    slices, tumour = [], []
    for number in range(SLICES):
        kinds = _regions(rng, number, matrix, middle, bend, spots)
        slices.append(_counts(rng, kinds, rates))
        tumour.append(kinds == TUMOUR)
    marks = {}
    for landmark, place in zip(LANDMARKS, PLACES, strict=True):
        marks[landmark] = tuple(float(v) * PIXEL_MM for v in _place(place, matrix, middle, bend))
    return Subject(name, site, held_out, np.stack(slices), np.stack(tumour), marks)


def _place(place, matrix, middle, bend):
    """Where a point of the organ lies in the slide, (x, y) in pixels: undone step by step."""
    aim = matrix @ place + middle
    x = aim.copy()
    for _ in range(20):  # the bend maps slide to organ: solve x + bend(x) = aim
        x = aim - np.array([map_coordinates(b, [[x[1]], [x[0]]], order=1)[0] for b in bend])
    return np.clip(x, 0, SIDE - 1)


def _regions(rng, number, matrix, middle, bend, spots):
    """uint8[SIDE, SIDE]: the tissue of each pixel of slice ``number``."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    away = np.stack([x + bend[0] - middle[0], y + bend[1] - middle[1]])
    px, py = np.tensordot(np.linalg.inv(matrix), away, 1)
    grown = 1.0 + 0.06 * (number - 1.5)  # consecutive slices differ a little
    kinds = np.where((px / 42) ** 2 + (py / 34) ** 2 < 1, STROMA, EMPTY)
    for sx, sy in spots + rng.normal(0, 1, spots.shape):
        kinds[(px - sx) ** 2 + (py - sy) ** 2 < 16 * (kinds == STROMA)] = INFLAMED
    (ax, ay), (bx, by), (cx, cy) = PLACES
    kinds[((px - ax) / 11) ** 2 + ((py - ay) / 8) ** 2 < grown] = TUMOUR
    kinds[(px - bx) ** 2 + (py - by) ** 2 < 20 * grown] = TUMOUR
    ring = np.hypot(px - cx, py - cy)
    kinds[(ring > 4) & (ring < 7.5 * grown) & (py > cy - 3)] = TUMOUR
    return kinds


def _counts(rng, kinds, rates):
    """uint8[SIDE, SIDE, bands]: counts of cells some three pixels wide."""
    cell = -(-SIDE // 3)
    other = rng.random((cell, cell)) < 1 / 3
    stray = rng.choice([STROMA, TUMOUR, INFLAMED], (cell, cell), p=(0.6, 0.2, 0.2))
    bright = rng.lognormal(0, 0.35, (cell, cell))
    wide = [np.kron(a, np.ones((3, 3), a.dtype))[:SIDE, :SIDE] for a in (other, stray, bright)]
    kinds = np.where(wide[0].astype(bool) & (kinds != EMPTY), wide[1], kinds)
    mean = rates[kinds] * np.where(kinds == EMPTY, 1.0, wide[2])[..., None]
    return np.minimum(rng.poisson(mean), 255).astype(np.uint8)
