"""Released keys and their counts as one file: what a codebook is made from.

Made after recovery, which happens at the sites; may hold only keys that passed
their release gate. One safetensors file: ``keys`` int64[n] (the bits of a uint64),
``counts`` int64[n], and one metadata entry of canonical JSON that says how keys
are read. Equal contents have equal bytes, and reading accepts no others, so
nothing can ride along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.arrivals.texts import json_of
from common.canonical import canonical_json, parse_canonical_json
from common.errors import CairnError, InputDataError, VerificationError
from common.keys.codebook_rules import MAX_KEYS
from common.keys.mixed_radix import MixedRadix

KIND: Final = "key-counts"
VERSION: Final = 1
MAX_BYTES: Final = 16 * MAX_KEYS + (1 << 16)


@dataclass(frozen=True, eq=False)
class KeyCounts:
    """Frequent keys of a federation and how often each occurred.

    Attributes:
        digits: how a key is read.
        keys: uint64[n], ascending, each once; read-only.
        counts: int64[n], at least 1 each; estimates, rounded; read-only.
        codec: identity of the codec that made the keys; ``digits.identity`` if empty.

    Raises:
        InputDataError: anything that does not fit together.
    """

    digits: MixedRadix
    keys: NDArray[np.uint64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    codec: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "codec", self.codec or self.digits.identity)
        keys, counts = np.array(self.keys), np.array(self.counts)
        if keys.ndim != 1 or keys.dtype != np.uint64 or counts.dtype.kind not in "ui":
            raise _unusable("keys and counts", "uint64[n] and integers[n]", _kinds(keys, counts))
        if counts.shape != keys.shape or not 1 <= keys.size <= MAX_KEYS:
            raise _unusable("keys", f"1 to {MAX_KEYS}, as many as counts", f"{keys.size} keys")
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order].astype(np.int64)
        if (keys[1:] == keys[:-1]).any():
            raise _unusable("keys", "each once", "repeats")
        if int(keys[-1]) >= self.digits.size:
            raise _unusable("keys", f"below {self.digits.size}", "a key of another codec")
        if counts.min() < 1:
            raise _unusable("counts", "at least 1 each", "a smaller one")
        keys.flags.writeable = counts.flags.writeable = False
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "counts", counts)

    @classmethod
    def of(cls, digits: MixedRadix, keys: ArrayLike, counts: ArrayLike, codec: str = "") -> Self:
        """From keys in any order and estimates, which are rounded.

        Raises:
            InputDataError: a count that is not a finite number, or as the class.
        """
        estimates = np.asarray(counts, np.float64)
        if not np.isfinite(estimates).all():
            raise _unusable("counts", "finite", "a number that is not")
        return cls(digits, np.asarray(keys), np.rint(estimates).astype(np.int64), codec)

    def to_bytes(self) -> bytes:
        """Safetensors bytes; equal contents have equal bytes."""
        header = canonical_json(
            {
                "codec": self.codec,
                "digits": {
                    "names": list(self.digits.names),
                    "radices": [str(radix) for radix in self.digits.radices],
                },
                "version": VERSION,
            }
        )
        arrays = {"keys": self.keys.view(np.int64), "counts": self.counts}
        return save(arrays, metadata={KIND: header.decode("utf-8")})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            InputDataError: any other bytes.
        """
        try:
            header = parse_canonical_json(_metadata(data), KIND)
            if not isinstance(header, dict) or header["version"] != VERSION:
                raise _unusable("version", f"{VERSION}", "another version")
            digits = MixedRadix(
                [int(radix) for radix in header["digits"]["radices"]], header["digits"]["names"]
            )
            arrays = load(data)
            keys, counts = arrays["keys"], arrays["counts"]
            if keys.dtype != np.int64 or counts.dtype != np.int64:
                raise _unusable("keys and counts", "int64[n] each", _kinds(keys, counts))
            value = cls(digits, keys.view(np.uint64), counts, header["codec"])
            same = value.to_bytes() == data
        except VerificationError as error:
            raise _unusable("metadata", "canonical JSON", "other text") from error
        except CairnError:
            raise
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unusable("file", "safetensors of keys and counts", "other bytes") from error
        if not same:
            raise _unusable("file", "exactly keys, counts and codec, ascending", "something else")
        return value


def read_key_counts(path: Path) -> KeyCounts:
    """Return the keys and counts in a file.

    Raises:
        InputDataError: no such file, too large, or not of this form.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise _unusable("file", "readable", type(error).__name__) from error
    if size > MAX_BYTES:
        raise _unusable("file", f"at most {MAX_BYTES} bytes", f"{size} bytes")
    return KeyCounts.from_bytes(data)


def _metadata(data: bytes) -> bytes:
    """Return the one metadata entry, from the head of the file."""
    length = int.from_bytes(data[:8], "little")
    header = json_of(data[8 : 8 + min(length, 1 << 16)])
    text = header["__metadata__"][KIND] if isinstance(header, dict) else ""
    return bytes(text.encode("utf-8"))


def _kinds(*arrays: NDArray[np.generic]) -> str:
    return " and ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)


def _unusable(what: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "unusable keys and counts",
        field=what,
        expected=expected,
        got=got,
        advice="It is made from what the sites release after recovery",
    )
