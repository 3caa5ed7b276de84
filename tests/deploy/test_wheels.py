"""Fetching what several locks name: two of them may hold two versions of one distribution."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InternalError, UnreachableError
from deploy.bundle.locks import ROLES, TOOLS, Pin, lock_file, read_lock, run_pip
from deploy.bundle.wheels import batches

PINS = st.lists(
    st.builds(
        Pin,
        st.sampled_from(["numpy", "packaging", "click"]),
        st.sampled_from(["1.0", "2.0", "3.0"]),
        st.just("0" * 64),
    ),
    unique=True,
)


@given(PINS)
def test_no_batch_names_a_distribution_twice_and_none_is_lost(pins):
    made = batches(pins)
    assert sorted(pin for batch in made for pin in batch) == sorted(pins)
    assert all(len({pin.name for pin in batch}) == len(batch) > 0 for batch in made)
    assert len(made) == max(Counter(pin.name for pin in pins).values(), default=0)


def test_the_locks_of_this_release_can_be_fetched_though_they_disagree():
    pins = {pin for role in (*ROLES, TOOLS) for pin in read_lock(lock_file(role))}
    made = batches(sorted(pins))
    assert len(made) == max(Counter(pin.name for pin in pins).values())


def test_pip_that_finds_nothing_is_told_from_pip_that_fails(tmp_path):
    nothing = ["download", "--no-index", "--no-deps", "--dest", str(tmp_path)]
    with pytest.raises(UnreachableError, match="No matching distribution"):
        run_pip([*nothing, "packaging==25.0"])
    with pytest.raises(InternalError, match="pip failed"):
        run_pip([*nothing, "--no-such-option"])
