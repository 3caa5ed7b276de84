"""Codecs between what was observed and the 64-bit keys that sketches count.

Lives here: mixed-radix numbers, situations of a search, the radices of quantised
pixels; all of them bijective, so a key found in a merged sketch can be read
back without a dictionary. May not live here: how a value is measured (imaging,
band reduction), or how keys are counted (``common.sketching``).
"""

from common.keys.experience import OffsetCodec, PlaceCodec, SituationCodec
from common.keys.mixed_radix import MixedRadix
from common.keys.pixels import all_bands, reduced_bands

__all__ = [
    "MixedRadix",
    "OffsetCodec",
    "PlaceCodec",
    "SituationCodec",
    "all_bands",
    "reduced_bands",
]
