"""A tag on a sum, which only holders of the federation key can make or check.

Site i has the vector x_i and sends the tag t_i = <rho, x_i> + pi_i mod 2**61 - 1. The
coefficients rho come from AES-128 in counter mode under a key derived for this run,
round, kind of record and history (``chain``), the pad pi_i from the same and the site's
name. Whoever adds vectors may add tags. A holder of the key accepts the sum S of the
sites U if the sum of their tags less their pads is <rho, S>. Another sum, another set, a
site twice or another round passes with a chance of 2**-61; the pads hide what a tag
would tell of its vector. One site that gives the key away undoes it for all.

Source: Agrawal & Boneh, Homomorphic MACs: MAC-based integrity for network coding, ACNS
2009; the pad is Carter & Wegman's, 1981.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from common.crypto.keyed import FederationKey
from common.sums.field import PRIME

_CHUNK: Final = 1 << 16  # words of rho that are held at once: half a megabyte

I64 = NDArray[np.int64]


def make_tag(key: FederationKey, context: str, site: str, pieces: Iterable[I64]) -> int:
    """Return the tag of one site's vector.

    Args:
        key: of the federation.
        context: names run, round, kind of record and history; see ``chain``.
        site: whose vector.
        pieces: the vector int64[n], in pieces.

    Returns:
        0 to ``PRIME`` - 1.
    """
    return (_inner_product(key, context, pieces) + _pad(key, context, site)) % PRIME


def holds(
    key: FederationKey, context: str, members: Iterable[str], pieces: Iterable[I64], tag: int
) -> bool:
    """Tell whether ``pieces`` are the sum of the vectors of exactly these sites.

    Args:
        key: of the federation.
        context: as ``make_tag``.
        members: the sites, each once.
        pieces: the sum int64[n], in pieces.
        tag: the sum of the sites' tags mod ``PRIME``.
    """
    pads = sum(_pad(key, context, site) for site in members)
    return (tag - pads) % PRIME == _inner_product(key, context, pieces)


def add_tags(tags: Iterable[int]) -> int:
    """Return the sum of tags, for whoever has no key."""
    return sum(tags) % PRIME


def _pad(key: FederationKey, context: str, site: str) -> int:
    """Uniform mod ``PRIME`` but for 2**-67."""
    return int.from_bytes(key.derive(f"sum pad {context} {site}", 16), "big") % PRIME


def _inner_product(key: FederationKey, context: str, pieces: Iterable[I64]) -> int:
    from common.sums.inner_product import dot  # compiles a kernel: only for holders of the key

    # The key is used for one context only, so its counter may begin at 0.
    secret = key.derive(f"sum coefficients {context}", 16)
    stream = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()
    total = 0
    for piece in pieces:
        for start in range(0, piece.size, _CHUNK):
            part = np.ascontiguousarray(piece[start : start + _CHUNK])
            words = np.frombuffer(stream.update(bytes(8 * part.size)), "<u8")
            total += int(dot(words.astype(np.uint64) & np.uint64(PRIME), part))
    return total % PRIME
