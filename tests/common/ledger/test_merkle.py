"""The Merkle tree is RFC 6962's, and no proof survives any change."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.errors import VerificationError
from common.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

UNTIMED = settings(deadline=None)  # a busy machine is no failure

# Test inputs and roots published with the Certificate Transparency reference implementation.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

sizes = st.integers(1, 70)


def hashes_of(size: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(size)]


def test_the_empty_tree_hashes_to_sha256_of_nothing():
    assert tree_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_roots_are_those_of_the_reference_implementation():
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    assert [tree_root(hashes[: n + 1]).hex() for n in range(len(hashes))] == ROOTS


def test_proofs_are_those_of_the_reference_implementation():
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    assert [h.hex() for h in inclusion_proof(hashes, 5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [h.hex() for h in consistency_proof(hashes, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@UNTIMED
@given(st.integers(0, 200))
def test_the_frontier_has_the_root_of_the_whole_tree(size):
    frontier = Frontier()
    for leaf in hashes_of(size):
        frontier.add(leaf)
    assert frontier.root() == tree_root(hashes_of(size))
    assert frontier.size == size


@UNTIMED
@given(sizes, st.data())
def test_every_inclusion_proof_verifies_and_only_for_its_leaf_place_and_size(size, data):
    index = data.draw(st.integers(0, size - 1))
    hashes = hashes_of(size)
    root, proof = tree_root(hashes), inclusion_proof(hashes, index)
    verify_inclusion(hashes[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1))
    assume(other != index)
    with pytest.raises(VerificationError):
        verify_inclusion(hashes[other], index, size, proof, root)
    with pytest.raises(VerificationError):
        verify_inclusion(hashes[index], other, size, proof, root)


@UNTIMED
@given(sizes, st.data())
def test_an_inclusion_proof_with_any_altered_element_fails(size, data):
    index = data.draw(st.integers(0, size - 1))
    hashes = hashes_of(size)
    root, proof = tree_root(hashes), inclusion_proof(hashes, index)
    for altered in alterations(proof, data):
        with pytest.raises(VerificationError):
            verify_inclusion(hashes[index], index, size, altered, root)
    with pytest.raises(VerificationError):
        verify_inclusion(hashes[index], index, size, proof, flip(root, 7))
    with pytest.raises(VerificationError):
        verify_inclusion(hashes[index], size, size, proof, root)


@UNTIMED
@given(st.integers(0, 70), st.data())
def test_every_consistency_proof_verifies(size, data):
    earlier = data.draw(st.integers(0, size))
    hashes = hashes_of(size)
    verify_consistency(
        earlier,
        size,
        tree_root(hashes[:earlier]),
        tree_root(hashes),
        consistency_proof(hashes, earlier),
    )


@UNTIMED
@given(sizes, st.data())
def test_a_consistency_proof_with_any_altered_element_or_root_fails(size, data):
    earlier = data.draw(st.integers(1, size))
    hashes = hashes_of(size)
    old, new = tree_root(hashes[:earlier]), tree_root(hashes)
    proof = consistency_proof(hashes, earlier)
    for altered in alterations(proof, data):
        with pytest.raises(VerificationError):
            verify_consistency(earlier, size, old, new, altered)
    with pytest.raises(VerificationError):
        verify_consistency(earlier, size, flip(old, 0), new, proof)
    with pytest.raises(VerificationError):
        verify_consistency(earlier, size, old, flip(new, 0), proof)


@UNTIMED
@given(sizes, st.data())
def test_a_rewritten_past_has_no_consistency_proof(size, data):
    earlier = data.draw(st.integers(1, size))
    rewritten = data.draw(st.integers(0, earlier - 1))
    hashes = hashes_of(size)
    forked = hashes.copy()
    forked[rewritten] = leaf_hash(b"something else")
    with pytest.raises(VerificationError):
        verify_consistency(
            earlier,
            size,
            tree_root(hashes[:earlier]),
            tree_root(forked),
            consistency_proof(forked, earlier),
        )


def test_a_tree_cannot_be_consistent_with_a_larger_past():
    hashes = hashes_of(4)
    with pytest.raises(VerificationError):
        verify_consistency(4, 3, tree_root(hashes), tree_root(hashes[:3]), [])


def test_nothing_is_a_prefix_of_everything_but_needs_no_proof():
    root = tree_root(hashes_of(3))
    verify_consistency(0, 3, EMPTY_ROOT, root, [])
    with pytest.raises(VerificationError):
        verify_consistency(0, 3, root, root, [])
    with pytest.raises(VerificationError):
        verify_consistency(0, 3, EMPTY_ROOT, root, [root])
    with pytest.raises(VerificationError):
        verify_consistency(0, 0, EMPTY_ROOT, root, [])


def test_no_proof_can_be_made_of_what_is_not_there():
    with pytest.raises(VerificationError):
        inclusion_proof(hashes_of(3), 3)
    with pytest.raises(VerificationError):
        consistency_proof(hashes_of(3), 4)


def alterations(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    """The proof with one bit flipped, one element short, one too many, and two swapped."""
    changed = [[*proof, leaf_hash(b"extra")], [leaf_hash(b"extra"), *proof]]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        changed.append([*proof[:at], flip(proof[at], bit), *proof[at + 1 :]])
        changed.append([*proof[:at], *proof[at + 1 :]])
        changed.append([*proof[:at], proof[at][:-1], *proof[at + 1 :]])
    if len(proof) > 1:
        changed.append([proof[1], proof[0], *proof[2:]])
    return changed


def flip(value: bytes, bit: int) -> bytes:
    return bytes(b ^ (1 << bit % 8 if place == bit // 8 else 0) for place, b in enumerate(value))
