"""Looking for planted things in outgoing bytes, in every form a leak could give them."""

import base64
import gzip
import re
import zlib

import numpy as np
import pytest

RUN = 16
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_MOST_INFLATED = 1 << 26


def token_forms(token: str) -> dict[str, bytes]:
    """A text in every spelling that is searched for."""
    raw = token.encode()
    forms = {
        "raw": raw,
        "lower case": raw.lower(),
        "reversed": raw[::-1],
        "utf-16-le": token.encode("utf-16-le"),
        "utf-16-be": token.encode("utf-16-be"),
        "utf-32": token.encode("utf-32-le"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
    }
    for offset, start in enumerate((0, 2, 3)):
        # Whatever stands before and after, these characters are the token's alone.
        text = base64.b64encode(b"\0" * offset + raw)
        forms[f"base64+{offset}"] = text[start : len(text) - 4]
    return forms


def layers(data: bytes) -> list[bytes]:
    """The bytes themselves, and whatever in them can be inflated."""
    found = [data]
    for match in _ZLIB.finditer(data):
        bits = 47 if data[match.start()] == 0x1F else 15
        try:
            inflated = zlib.decompressobj(bits).decompress(data[match.start() :], _MOST_INFLATED)
        except zlib.error:
            continue
        if inflated:
            found.append(inflated)
    return found


def pixel_runs(image: np.ndarray) -> np.ndarray:
    """float64[n, RUN]: every run of neighbouring pixels along each axis that has a pattern."""
    runs = []
    for axis in range(image.ndim):
        windows = np.lib.stride_tricks.sliding_window_view(image, RUN, axis=axis)
        runs.append(windows.reshape(-1, RUN).astype(np.float64))
    every = np.concatenate(runs)
    return every[every.max(axis=1) - every.min(axis=1) >= 8]


class Spelling:
    """Runs of pixels as a leak could spell them, ready to be looked for.

    Args:
        runs: number[n, RUN].
    """

    def __init__(self, runs: np.ndarray) -> None:
        self.width = runs.dtype.itemsize * RUN
        rows = np.ascontiguousarray(runs).view(np.uint8).reshape(len(runs), self.width)
        heads = np.ascontiguousarray(rows[:, :8]).view("<u8").ravel()
        order = np.argsort(heads, kind="stable")
        self.rows, self.heads = rows[order], heads[order]

    def stands_in(self, data: bytes) -> bool:
        """Whether any run stands anywhere in the data."""
        if len(data) < self.width:
            return False
        # First the leading eight bytes of every place, then the whole run.
        places = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8)
        heads = np.ascontiguousarray(places[: len(data) - self.width + 1]).view("<u8").ravel()
        at = np.minimum(np.searchsorted(self.heads, heads), len(self.heads) - 1)
        for place in np.flatnonzero(self.heads[at] == heads).tolist():
            first = at[place]
            last = np.searchsorted(self.heads, heads[place], side="right")
            piece = data[place : place + self.width]
            if any(row.tobytes() == piece for row in self.rows[first:last]):
                return True
        return False


class Scanner:
    """Looks for texts, and for images as stored and as the worker holds them."""

    def __init__(self, tokens: list[str], images: list[np.ndarray]) -> None:
        self.tokens = tokens
        self.images = images
        runs = np.concatenate([pixel_runs(image) for image in images])
        self._spellings = {
            "u8": Spelling(runs.astype(np.uint8)),
            "i16": Spelling(runs.astype("<i2")),
            "f32": Spelling(runs.astype("<f4")),
            "f32/255": Spelling((runs / 255).astype("<f4")),
        }

    def findings(self, data: bytes) -> list[str]:
        """Every planted thing that the data holds, and in which form."""
        found = []
        for depth, layer in enumerate(layers(data)):
            where = "inflated " if depth else ""
            for token in self.tokens:
                forms = token_forms(token).items()
                found += [f"{where}{token} as {name}" for name, form in forms if form in layer]
            found += [
                f"{where}pixels as {name}"
                for name, spelling in self._spellings.items()
                if spelling.stands_in(layer)
            ]
        return found


@pytest.fixture(scope="module")
def new_scanner():
    return Scanner


@pytest.fixture
def hide():
    """Ways in which something could be smuggled: each must be found."""
    return {
        "raw": lambda data: data,
        "zlib": lambda data: zlib.compress(b"x" * 50 + data + b"y" * 50),
        "gzip": lambda data: gzip.compress(data),
        "base64": lambda data: base64.b64encode(b"ab" + data + b"zz"),
        "hex": lambda data: data.hex().encode(),
        "utf-16": lambda data: data.decode("latin-1").encode("utf-16-le"),
    }
