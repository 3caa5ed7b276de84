"""The rule of lengths: what a liar of n can do is its share of what honest sites do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aggregator.intake.outliers import BOUND, FALL, GROWTH, ROUNDS, oversized, reference

# Norms of honest updates round by round, as the demonstration's plan gave them.
THREE = [
    (5.611, 5.225, 5.448),
    (4.001, 4.205, 4.194),
    (3.076, 3.778, 3.091),
    (2.666, 3.060, 2.721),
    (2.320, 2.607, 2.353),
    (2.146, 2.417, 2.117),
    (1.918, 2.107, 1.958),
    (1.755, 1.946, 1.719),
    (2.695, 2.494, 2.508),
    (1.885, 1.979, 1.888),
    (1.643, 1.569, 1.630),
    (1.335, 1.359, 1.248),
    (1.090, 1.093, 1.064),
    (0.868, 0.961, 0.856),
    (0.729, 0.735, 0.678),
    (0.498, 0.509, 0.505),
]
FIVE = [
    (5.433, 5.152, 5.387, 5.242, 5.253),
    (4.062, 4.078, 4.071, 3.905, 3.865),
    (3.413, 3.400, 3.201, 3.221, 2.969),
    (2.619, 2.760, 2.669, 2.497, 2.432),
    (2.614, 2.664, 2.619, 2.573, 2.504),
    (1.859, 1.776, 1.749, 1.753, 1.650),
    (1.306, 1.219, 1.212, 1.252, 1.117),
    (0.842, 0.774, 0.731, 0.786, 0.688),
]
TWO = [
    (5.794, 5.775),
    (5.057, 4.492),
    (4.124, 3.319),
    (3.245, 2.498),
    (2.467, 1.735),
    (1.519, 0.977),
]
BEGAN_ANEW = {5: 3.433, 6: 3.111, 8: 2.806, 9: 2.684, 10: 3.020, 12: 2.624, 13: 2.725}


def named(norms) -> dict[str, float]:
    return {f"site-{place}": norm for place, norm in enumerate(norms)}


def carried_out(rounds, n):
    """Norms round by round with what each found; what was left out leaves no history."""
    history: list[float] = []
    for norms in rounds:
        sites = named(norms[:n])
        found = oversized(sites, history)
        yield found
        history.append(reference(norm for site, norm in sites.items() if site not in found))


@pytest.mark.parametrize(("rounds", "n"), [(THREE, 3), (THREE, 2), (FIVE, 5), (FIVE, 4), (TWO, 2)])
def test_no_honest_site_that_was_measured_is_left_out(rounds, n):
    assert all(found == {} for found in carried_out(rounds, n))


def test_a_site_that_began_anew_in_mid_run_is_not_left_out():
    history = [reference(norms) for norms in THREE]
    for round_, norm in BEGAN_ANEW.items():
        sites = named(THREE[round_ - 1][:2]) | {"late": norm}
        assert oversized(sites, history[: round_ - 1]) == {}, round_


# The lies, by their numbers in the attack program; the honest norm is 0.05.


def test_lie_2_an_update_of_almost_ten_times_the_median_is_left_out():
    found = oversized({"a": 0.05, "b": 0.05, "c": 0.05, "d": 0.05 * 9.9})
    assert set(found) == {"d"}
    assert "3.3 times as long as allowed" in found["d"]


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_lies_3_5_and_6_a_huge_update_is_left_out_however_few_the_sites_are(n):
    sites = named([0.05] * (n - 1)) | {"liar": 99.0}
    assert set(oversized(sites)) == {"liar"}
    assert set(oversized(sites, [0.06, 0.05])) == {"liar"}


def test_lie_12_a_length_that_is_no_number_is_left_out_and_no_reference():
    found = oversized({"a": 0.05, "b": math.nan, "c": math.inf, "d": 0.06, "e": -1.0})
    assert found == dict.fromkeys(("b", "c", "e"), "its update has no length")


def test_lie_13_two_of_four_sites_that_send_the_same_long_update_are_left_out():
    assert set(oversized({"a": 0.05, "b": 0.05, "c": 0.495, "d": 0.495})) == {"c", "d"}


def test_lie_13_three_of_five_are_the_median_in_the_first_round_and_not_later():
    sites = {"a": 0.05, "b": 0.05, **dict.fromkeys("cde", 0.495)}
    assert oversized(sites) == {}
    assert set(oversized(sites, [0.05])) == set("abcde")


def test_lie_14_a_majority_of_fifty_times_the_usual_ends_the_round_instead_of_deciding_it():
    sites = {"a": 0.05, "b": 0.05, **dict.fromkeys("cde", 2.5)}
    found = oversized(sites, [0.05, 0.06])
    assert set(found) == set("abcde")
    assert "let expect" in found["a"]
    assert "times as long as allowed" in found["c"]


def test_lie_15_where_two_of_three_send_nothing_the_third_is_left_out():
    found = oversized({"a": 0.0, "b": 0.0, "c": 90.0})
    assert set(found) == {"c"}
    assert "half" in found["c"]


def test_where_nobody_moves_the_weights_nobody_is_left_out():
    assert oversized({"a": 0.0, "b": 0.0, "c": 0.0}, [0, 0]) == {}
    assert oversized({}, [1.0]) == {}


def test_a_site_that_sends_next_to_nothing_has_the_other_left_out_only_in_the_first_round():
    assert set(oversized({"liar": 1e-9, "honest": 2.0})) == {"honest"}
    assert oversized({"liar": 1e-9, "honest": 2.0}, [2.4]) == {}
    assert oversized({"a": 0.0, "b": 0.0, "c": 2.0, "d": 2.1}, [2.4]) == {}


def test_rounds_in_which_nothing_moved_say_nothing():
    assert oversized({"a": 2.0, "b": 2.1}, [0, 0, 0]) == {}


def test_a_round_that_counts_is_remembered_by_its_lower_median():
    assert [reference(norms) for norms in ([], [3.0], [1, 9], [9, 2, 1])] == [0.0, 3.0, 1, 2]


NORMS = st.floats(0, 1e6)
MANY = st.lists(NORMS, min_size=1, max_size=6)


def part_of_the_mean(sites, found, liar, caps=None):
    """Length of the liar's part of the accepted mean."""
    kept = [site for site in sites if site not in found]
    if liar not in kept:
        return 0.0
    weight = caps or dict.fromkeys(sites, 1)
    return sites[liar] * weight[liar] / sum(weight[site] for site in kept)


@given(MANY, NORMS, st.lists(st.floats(0, 1e6), max_size=8))
def test_one_liar_of_n_moves_the_mean_by_its_share_of_the_bound(honest, lie, history):
    """What `oversized` promises, for n of 2 to 7 and whatever the honest norms are."""
    step = max(honest)
    recent = [usual for usual in history[-ROUNDS:] if usual > 0]
    assume(not recent or step >= min(recent) / FALL)
    sites = named(honest) | {"liar": lie}
    moved = part_of_the_mean(sites, oversized(sites, history), "liar")
    assert moved <= BOUND * step / len(sites) * (1 + 1e-9)


@given(MANY, NORMS)
def test_with_the_bound_of_two_the_promise_still_holds(honest, lie):
    sites = named(honest) | {"liar": lie}
    moved = part_of_the_mean(sites, oversized(sites, bound=2.0), "liar")
    assert moved <= 2 * max(honest) / len(sites) * (1 + 1e-9)


@given(
    st.lists(st.floats(1.0, BOUND), min_size=2, max_size=6),
    NORMS,
    st.lists(st.integers(1, 10**6), min_size=7, max_size=7),
)
def test_with_other_caps_a_liar_moves_the_mean_by_its_caps_share(honest, lie, numbers):
    """Honest norms within the bound of each other, three sites or more: nobody honest is out."""
    sites = {"liar": lie} | named(honest)
    caps = dict(zip(sites, numbers, strict=False))
    found = oversized(sites)
    assert set(found) <= {"liar"}
    claims = {site: min(2**52, cap) for site, cap in caps.items()}
    share = caps["liar"] / sum(caps.values())
    moved = part_of_the_mean(sites, found, "liar", claims)
    assert moved <= share * BOUND * max(honest) * (1 + 1e-9)


@given(st.integers(3, 7), st.data())
def test_liars_below_half_move_the_mean_by_their_share(n, data):
    k = data.draw(st.integers(1, (n - 1) // 2))
    honest = data.draw(st.lists(st.floats(1.0, 1.5), min_size=n - k, max_size=n - k))
    lies = data.draw(st.lists(NORMS, min_size=k, max_size=k))
    sites = named(honest) | {f"liar-{place}": lie for place, lie in enumerate(lies)}
    found = oversized(sites)
    assert not any(site in found for site in named(honest))
    moved = sum(part_of_the_mean(sites, found, f"liar-{place}") for place in range(k))
    assert moved <= k / n * BOUND * max(honest) * (1 + 1e-9)


@given(st.lists(NORMS, min_size=1, max_size=7), st.lists(st.floats(0.1, 1e5), min_size=1))
def test_no_majority_brings_in_more_than_grows_out_of_the_last_rounds(norms, history):
    sites = named(norms)
    found = oversized(sites, history)
    most = BOUND * GROWTH * reference(history[-ROUNDS:])
    assert all(norm <= most for site, norm in sites.items() if site not in found)
    kept = len(sites) - len(found)
    assert kept == 0 or 2 * kept >= len(sites)


@given(MANY, st.floats(1e-3, 1e3))
def test_the_unit_of_the_norms_decides_nothing(honest, unit):
    sites = named([float(np.float32(norm)) for norm in honest])
    scaled = {site: norm * 2.0 ** round(math.log2(unit)) for site, norm in sites.items()}
    assert set(oversized(sites)) == set(oversized(scaled))
