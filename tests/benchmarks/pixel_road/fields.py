"""Multiplex images of breast tissue, dealt to three sites by patient.

18 fields of view, one patient each, 1024 x 1024 pixels of the MIBI-TOF set of Risom et al.,
Cell 2022. They lie beside the checkout and are not part of it: their terms are unknown.
"""

import csv
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from site_client.pixels.slides import open_slide

FIELDS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "dcis_mibi"
LEFT_OUT = ("CD56", "FOXP3", "HIF1a", "Nuc", "P", "PD1")  # 41 channels less these are 35 bands
EPITHELIAL = ("CK5", "CK7", "ECAD", "PanKRT")
SITES = 3
SIGMA = 2.0  # pixels by which bands are smoothed, where they are
BLURRED_UNIT = 16  # integers per count once bands are smoothed
GRAINS = ("as counted", "blurred")
CHUNK = 1 << 16


@dataclass(eq=False)
class Field:
    """A slide in memory, as ``site_client.pixels`` wants it, with its site and reference."""

    name: str
    site: int
    bands: tuple[str, ...]
    array: np.ndarray
    keratin: np.ndarray

    @property
    def pixels(self):
        return self.array.shape[0] * self.array.shape[1]

    @property
    def shape(self):
        return self.array.shape

    def chunks(self):
        flat = self.array.reshape(-1, len(self.bands))
        for start in range(0, len(flat), CHUNK):
            yield flat[start : start + CHUNK]


@lru_cache(maxsize=1)  # one set of them fills more than a gigabyte
def read_fields(grain, per_site=0):
    """All fields, as counted or smoothed; ``per_site`` takes so many of each site, 0 all."""
    bands = _names_of_bands()
    with (FIELDS / "fields.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["patient"])
    assert len({row["patient"] for row in rows}) == len(rows)
    fields = []
    for number, row in enumerate(rows[: per_site * SITES or None]):
        slide = open_slide(FIELDS / row["field"], bands)
        array = np.concatenate(list(slide.chunks())).reshape(slide.shape)
        keratin = array[..., [bands.index(name) for name in EPITHELIAL]].sum(-1, dtype=np.float32)
        if grain == "blurred":
            array = _blurred(array)
        fields.append(Field(row["field"], number % SITES, bands, array, keratin))
    return fields


def without(fields, names):
    """The same fields without some bands."""
    kept = [i for i, band in enumerate(fields[0].bands) if band not in names]
    bands = tuple(fields[0].bands[i] for i in kept)
    return [
        replace(field, bands=bands, array=np.ascontiguousarray(field.array[..., kept]))
        for field in fields
    ]


def _names_of_bands():
    folder = next(path for path in sorted(FIELDS.iterdir()) if path.is_dir())
    bands = [path.stem for path in sorted(folder.iterdir())]
    bands = tuple(name for name in bands if name not in LEFT_OUT)
    assert len(bands) == 35
    assert set(EPITHELIAL) <= set(bands)
    return bands


def _blurred(array):
    out = np.empty(array.shape, np.uint16)
    for band in range(array.shape[2]):
        smooth = gaussian_filter(array[..., band].astype(np.float32), SIGMA)
        out[..., band] = np.rint(BLURRED_UNIT * smooth)
    return out
