"""Count sketches: who may add tables, who may query them, and what they hold.

Lives here: the spec that makes two tables addable, keyed hashing, the sketch
itself, and how heavy hitters are found in merged tables. May not live here: what a key
means (``common.keys``), noise, masks, or anything that sends.

``count_sketch`` and ``spec`` are the face; ``recovery`` finds frequent keys; ``dictionary``
counts a stream exactly while it has room; ``hot_keys`` keeps frequent keys from costing
what the others cost;
``reference`` is the definition in plain numpy, which ``kernels`` must equal bit for bit.

Importing this package compiles nothing and does not import numba: a party that
only adds tables never pays for the kernels.
"""

from common.sketching.count_sketch import CountSketch
from common.sketching.spec import SketchSpec, key_id

__all__ = ["CountSketch", "SketchSpec", "key_id"]
