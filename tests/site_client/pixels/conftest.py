"""Made-up tissue, slides in memory, and a codec fitted to them."""

from dataclasses import dataclass

import numpy as np
import pytest

from common.keys.pixel_projection import PixelProjection
from common.keys.pixels import PixelCodec
from site_client.pixels.statistics import component_ranges, survey

BANDS = tuple(f"band {i}" for i in range(12))


@dataclass
class MemorySlide:
    """A slide that was never a file."""

    image: np.ndarray
    bands: tuple[str, ...] = BANDS
    piece: int = 1000

    @property
    def shape(self):
        return self.image.shape

    @property
    def pixels(self):
        return self.image.shape[0] * self.image.shape[1]

    def chunks(self):
        flat = self.image.reshape(-1, len(self.bands))
        for start in range(0, len(flat), self.piece):
            yield flat[start : start + self.piece]


def made_up_tissue(rng, rows=120, columns=100, bands=12, dtype=np.uint16):
    """Four kinds of tissue over a dim, noisy background; rows x columns x bands."""
    kinds = np.random.default_rng(9).uniform(0.02, 1, (4, bands)) ** 2
    n = rows * columns
    bright = kinds[rng.integers(0, 4, n)] * rng.uniform(120, 250, (n, 1))
    bright *= rng.lognormal(0, 0.05, (n, bands))
    dark = rng.lognormal(1.2, 0.2, (n, bands))
    pixels = np.where(rng.random((n, 1)) < 0.6, bright, dark)
    return np.clip(np.rint(pixels), 0, 255).astype(dtype).reshape(rows, columns, bands)


@pytest.fixture(scope="session")
def bands():
    return BANDS


@pytest.fixture(scope="session")
def tissue():
    return made_up_tissue


@pytest.fixture(scope="session")
def memory_slide():
    return MemorySlide


@pytest.fixture(scope="session")
def fitted():
    """A codec of 5 components in 9 bins, and the slides that it was fitted to."""
    slides = [MemorySlide(made_up_tissue(np.random.default_rng(seed))) for seed in range(3)]
    surveys = [survey(slide) for slide in slides]
    projection = PixelProjection.fit(surveys[0] + surveys[1] + surveys[2], 5)
    ranges = [component_ranges(slide, projection) for slide in slides]
    return PixelCodec.fit(projection, ranges[0] + ranges[1] + ranges[2], bins=9), slides
