"""The RFC 6962 Merkle tree: hashes, roots, inclusion and consistency proofs.

Pure functions over 32-byte hashes: no files, no signatures, no records. A proof
either verifies or raises; there is no third outcome.

Source: RFC 6962 section 2.1, with the iterative verification of RFC 9162
sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from common.errors import VerificationError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(record: bytes) -> bytes:
    """Hash of a leaf: SHA-256 of a zero byte and the record."""
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 of a one byte and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: O(log n) memory, O(log n) per leaf and root."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # roots of the perfect subtrees, largest first

    def add(self, leaf: bytes) -> None:
        """Append a leaf hash."""
        carry = leaf
        position = self.size
        while position & 1:
            carry = node_hash(self._peaks.pop(), carry)
            position >>= 1
        self._peaks.append(carry)
        self.size += 1

    def root(self) -> bytes:
        """Root over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return an independent frontier at the same size."""
        twin = Frontier()
        twin.size = self.size
        twin._peaks = self._peaks.copy()
        return twin


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """Root over leaf hashes, in order."""
    return _subtree(hashes, 0, len(hashes)) if hashes else EMPTY_ROOT


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from leaf ``index`` up to the root over all of ``hashes``.

    Raises:
        VerificationError: no such leaf.
    """
    if not 0 <= index < len(hashes):
        raise VerificationError(
            "no proof exists", field="index", expected=f"below {len(hashes)}", got=str(index)
        )
    return _inclusion(hashes, index, 0, len(hashes))


def consistency_proof(hashes: Sequence[bytes], m: int) -> list[bytes]:
    """Hashes that show the tree over the first ``m`` leaves to be a prefix of the whole.

    Raises:
        VerificationError: ``m`` is larger than the tree.
    """
    n = len(hashes)
    if not 0 <= m <= n:
        raise VerificationError(
            "no proof exists", field="earlier size", expected=f"0 to {n}", got=str(m)
        )
    if m in (0, n):
        return []
    return _consistency(hashes, m, 0, n, complete=True)


def consistency_length(m: int, n: int) -> int:
    """Return of how many hashes the proof from ``m`` to ``n`` leaves consists; 0 <= m <= n."""
    if m in (0, n):
        return 0
    length, whole = 0, True  # whether the old tree is still the whole left part
    while m != n:
        split, length = _split(n), length + 1
        if m <= split:
            n = split
        else:
            m, n, whole = m - split, n - split, False
    return length if whole else length + 1


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Return only if ``leaf`` stands at ``index`` in the tree of ``size`` leaves with ``root``.

    Raises:
        VerificationError: it does not, or the proof is malformed.
    """
    if not 0 <= index < size:
        raise _does_not_hold("inclusion")
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise _does_not_hold("inclusion")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            node = node_hash(node, sibling)
        fn >>= 1
        sn >>= 1
    if sn or not hmac.compare_digest(node, root) or not _are_hashes(proof):
        raise _does_not_hold("inclusion")


def verify_consistency(
    m: int, n: int, root_m: bytes, root_n: bytes, proof: Sequence[bytes]
) -> None:
    """Return only if the tree of ``m`` leaves is a prefix of the tree of ``n`` leaves.

    Raises:
        VerificationError: it is not, or the proof is malformed.
    """
    if not 0 <= m <= n or not _are_hashes(proof):
        raise _does_not_hold("consistency")
    if m in (0, n):
        earlier = EMPTY_ROOT if m == 0 else root_n
        if proof or not hmac.compare_digest(earlier, root_m):
            raise _does_not_hold("consistency")
        if n == 0 and not hmac.compare_digest(root_n, EMPTY_ROOT):
            raise _does_not_hold("consistency")
        return
    path = list(proof)
    if m & (m - 1) == 0:  # a perfect tree is its own first node
        path.insert(0, root_m)
    if not path:
        raise _does_not_hold("consistency")
    fn, sn = m - 1, n - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise _does_not_hold("consistency")
        if fn & 1 or fn == sn:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            new = node_hash(new, sibling)
        fn >>= 1
        sn >>= 1
    if sn or not hmac.compare_digest(old, root_m) or not hmac.compare_digest(new, root_n):
        raise _does_not_hold("consistency")


def _split(n: int) -> int:
    """Largest power of two below ``n`` (n > 1)."""
    return 1 << ((n - 1).bit_length() - 1)


def _subtree(hashes: Sequence[bytes], start: int, stop: int) -> bytes:
    if stop - start == 1:
        return hashes[start]
    middle = start + _split(stop - start)
    return node_hash(_subtree(hashes, start, middle), _subtree(hashes, middle, stop))


def _inclusion(hashes: Sequence[bytes], index: int, start: int, stop: int) -> list[bytes]:
    if stop - start == 1:
        return []
    middle = start + _split(stop - start)
    if index < middle:
        return [*_inclusion(hashes, index, start, middle), _subtree(hashes, middle, stop)]
    return [*_inclusion(hashes, index, middle, stop), _subtree(hashes, start, middle)]


def _consistency(
    hashes: Sequence[bytes], m: int, start: int, stop: int, *, complete: bool
) -> list[bytes]:
    """RFC 6962 SUBPROOF(m, D[start:stop], complete); m counts from the start of the whole tree."""
    if m == stop:
        return [] if complete else [_subtree(hashes, start, stop)]
    middle = start + _split(stop - start)
    if m <= middle:
        proof = _consistency(hashes, m, start, middle, complete=complete)
        return [*proof, _subtree(hashes, middle, stop)]
    proof = _consistency(hashes, m, middle, stop, complete=False)
    return [*proof, _subtree(hashes, start, middle)]


def _are_hashes(proof: Sequence[bytes]) -> bool:
    return all(len(element) == HASH_BYTES for element in proof)


def _does_not_hold(what: str) -> VerificationError:
    return VerificationError(
        f"a Merkle {what} proof does not hold",
        expected="a path to the signed root",
        got="another path",
    )
