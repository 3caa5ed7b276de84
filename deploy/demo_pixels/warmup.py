"""Compiles the pixel kernels once, before three workers would each do it for themselves.

numba keeps what it compiled on disk; after the first run this takes a moment.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from common.keys.codebook import Codebook
from common.keys.pixel_projection import PixelProjection
from common.keys.pixels import PixelCodec
from common.sketching import SketchSpec
from site_client.pixels.counting import PixelCounter, count_slides
from site_client.pixels.embed import embed
from site_client.pixels.release import ReleaseRule, release
from site_client.pixels.slides import open_slide
from site_client.pixels.statistics import component_ranges, survey

SIDE = 40
BANDS = ("a", "b", "c", "d", "e", "f")


def main() -> None:
    """Do a whole run over one slide of noise, in memory."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.npy"
        np.save(path, rng.integers(0, 900, (SIDE, SIDE, len(BANDS)), dtype=np.uint16))
        slide = open_slide(path, BANDS)
        projection = PixelProjection.fit(survey(slide), components=5, floor=1)
        codec = PixelCodec.fit(projection, component_ranges(slide, projection), bins=4)
        counter = PixelCounter(codec, SketchSpec(3, 4096, bytes(16)), presence_floor=1)
        count_slides([slide], counter, codec)
        named = release(counter.tables(), ReleaseRule(pixels=2, sites=1), top=100)
        keys = named.keys[:10]
        book = Codebook.make(codec.digits, keys, np.arange(keys.size) % 2, codec.identity)
        embed(slide, codec, book.label({0: "one", 1: "other"}))


if __name__ == "__main__":
    main()
