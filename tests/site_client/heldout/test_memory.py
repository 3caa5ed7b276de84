"""What is remembered of who was held out survives, names nobody, and is never drawn anew."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputDataError
from site_client.heldout.memory import Memory, begin_memory, read_memory, write_memory

NAMES = st.sets(st.text(min_size=1, max_size=8), max_size=6)


@given(NAMES, NAMES)
def test_what_is_written_is_read_again(tmp_path_factory, held_out, training):
    memory = Memory(b"s" * 32)
    for names, is_held_out in ((held_out, True), (training - held_out, False)):
        for name in names:
            memory = memory.add(name, [f"{name}_T1w"], held_out=is_held_out)
    path = tmp_path_factory.mktemp("memory") / "heldout.json"
    write_memory(path, memory)
    assert read_memory(path) == memory


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_subject_has_a_number_of_its_own_between_zero_and_one(one, other):
    memory = Memory(b"s" * 32)
    assert 0 <= memory.number(one) < 1
    assert (memory.number(one) == memory.number(other)) == (one == other)


def test_no_name_is_written_down(tmp_path):
    path = tmp_path / "heldout.json"
    memory = Memory(b"s" * 32).add("sub-doe", ["sub-doe_T1w"], held_out=True)
    write_memory(path, memory)
    assert b"doe" not in path.read_bytes()
    assert "s" * 32 not in repr(memory)


def test_every_site_begins_with_a_seed_of_its_own(tmp_path):
    seeds = set()
    for _ in range(3):
        begin_memory(tmp_path / "heldout.json")
        memory = read_memory(tmp_path / "heldout.json")
        assert memory.empty
        seeds.add(memory.seed)
    assert len(seeds) == 3


def test_a_lost_memory_is_an_error_with_advice(tmp_path):
    with pytest.raises(InputDataError, match="cannot be read") as caught:
        read_memory(tmp_path / "heldout.json")
    assert "backup" in caught.value.advice


def damage(stored, how):
    match how:
        case "cut":
            return json.dumps(stored)[:-20]
        case "empty":
            return ""
        case "both parts":
            return json.dumps(stored | {"training": stored["held_out"]})
        case "another field":
            return json.dumps(stored | {"share": 0.2})
        case "a name":
            return json.dumps(stored | {"training": ["sub-01"]})
        case "no seed":
            return json.dumps({k: v for k, v in stored.items() if k != "seed"})


@pytest.mark.parametrize(
    "how", ["cut", "empty", "both parts", "another field", "a name", "no seed"]
)
def test_a_damaged_memory_is_an_error_and_no_new_draw(tmp_path, how):
    path = tmp_path / "heldout.json"
    write_memory(path, Memory(b"s" * 32).add("sub-1", ["sub-1_T1w"], held_out=True))
    path.write_text(damage(json.loads(path.read_text()), how))
    before = path.read_bytes()
    with pytest.raises(InputDataError, match="damaged"):
        read_memory(path)
    assert path.read_bytes() == before
