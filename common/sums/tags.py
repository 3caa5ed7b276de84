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
from numba import uint64
from numpy.typing import NDArray

from common.crypto.keyed import FederationKey
from common.sketching.compiling import compiled, inlined

PRIME: Final = 2**61 - 1
_CHUNK: Final = 1 << 16  # words of rho that are held at once: half a megabyte

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U64One = np.uint64


def make_tag(key: FederationKey, context: str, site: str, pieces: Iterable[I64]) -> int:
    """The tag of one site's vector.

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
    """Whether ``pieces`` are the sum of the vectors of exactly these sites.

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
    """The sum of tags, for whoever has no key."""
    return sum(tags) % PRIME


def _pad(key: FederationKey, context: str, site: str) -> int:
    """Uniform mod ``PRIME`` but for 2**-67."""
    return int.from_bytes(key.derive(f"sum pad {context} {site}", 16), "big") % PRIME


def _inner_product(key: FederationKey, context: str, pieces: Iterable[I64]) -> int:
    # The key is used for one context only, so its counter may begin at 0.
    secret = key.derive(f"sum coefficients {context}", 16)
    stream = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()
    total = 0
    for piece in pieces:
        for start in range(0, piece.size, _CHUNK):
            part = np.ascontiguousarray(piece[start : start + _CHUNK])
            words = np.frombuffer(stream.update(bytes(8 * part.size)), "<u8")
            total += int(_dot(words.astype(np.uint64) & np.uint64(PRIME), part))
    return total % PRIME


@inlined
def _times(a: U64One, b: U64One) -> U64One:
    """Multiply mod 2**61 - 1 two numbers below 2**61 + 8, by halves of 32 bits; below 2**61 + 8."""
    low, high = uint64(0xFFFFFFFF), uint64(32)
    a0, a1 = a & low, a >> high
    b0, b1 = b & low, b >> high
    least, middle0, middle1, most = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (least >> high) + (middle0 & low) + (middle1 & low)
    bits0 = (least & low) | (middle << high)
    bits1 = most + (middle0 >> high) + (middle1 >> high) + (middle >> high)
    folded = (bits0 & uint64(PRIME)) + ((bits0 >> uint64(61)) | (bits1 << uint64(3)))
    product: U64One = (folded & uint64(PRIME)) + (folded >> uint64(61))
    return product


@compiled
def _dot(rho: U64, values: I64) -> U64One:
    """Inner product mod 2**61 - 1; rho below 2**61, values any int64."""
    prime = uint64(PRIME)
    total: U64One = uint64(0)
    for i in range(values.size):
        value = values[i]
        # -(-2**63) wraps to itself, whose bits as uint64 are 2**63: the right magnitude.
        size = uint64(value) if value >= 0 else uint64(-value)
        size = (size & prime) + (size >> uint64(61))
        product = _times(rho[i], size)
        product = (product & prime) + (product >> uint64(61))
        if value < 0:
            product = prime - product if product < prime else uint64(0)
        total = total + product
        total = (total & prime) + (total >> uint64(61))
    result: U64One = total % prime
    return result
