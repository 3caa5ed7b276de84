"""Who is held out: chosen once by subject, stable, near the share, and never moved again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputDataError
from common.policy import HeldOut
from site_client.heldout.choice import FEWEST, divide, fewest
from site_client.heldout.memory import Memory

SEEDS = st.binary(min_size=32, max_size=32)
SHARES = st.floats(0, 0.9)
LEAST = st.integers(1, 5)
SUBJECTS = st.sets(st.integers(0, 500), max_size=40)
SEED = b"s" * 32


def cases_of(numbers, images=1):
    return [f"sub-{n}_ses-{k}_T1w" for n in sorted(numbers) for k in range(images)]


def subjects_of(cases):
    return {case.split("_")[0] for case in cases}


def training_of(division, names):
    return set(names) - division.held_out


@given(SEEDS, SHARES, LEAST, SUBJECTS, st.randoms(use_true_random=False))
def test_the_order_in_which_files_are_found_does_not_matter(seed, share, least, numbers, random):
    names = cases_of(numbers, images=2)
    shuffled = list(names)
    random.shuffle(shuffled)
    setting = HeldOut(share=share)
    first, second = (divide(n, setting, least, Memory(seed)) for n in (names, shuffled))
    assert first == second


@given(SEEDS, SHARES, LEAST, SUBJECTS, st.integers(1, 3))
def test_no_subject_is_in_both_parts(seed, share, least, numbers, images):
    names = cases_of(numbers, images)
    division = divide(names, HeldOut(share=share), least, Memory(seed))
    held_out, training = subjects_of(division.held_out), subjects_of(training_of(division, names))
    assert not held_out & training
    assert held_out | training == subjects_of(names)
    assert (division.subjects, division.held_out_subjects) == (len(numbers), len(held_out))
    assert (division.cases, len(division.held_out)) == (len(names), images * len(held_out))


@given(SEEDS, SHARES, LEAST, SUBJECTS)
def test_the_first_draw_meets_the_share_and_leaves_both_parts_their_floor(
    seed, share, least, numbers
):
    division = divide(cases_of(numbers), HeldOut(share=share), least, Memory(seed))
    count, total = division.held_out_subjects, len(numbers)
    if share == 0 or total < fewest(least):
        assert count == 0
        return
    assert count >= least
    assert total - count >= least
    assert abs(count - share * total) <= 0.5 or count in (least, total - least)


@given(SEEDS, st.lists(st.tuples(SUBJECTS, SHARES, LEAST), min_size=1, max_size=6))
def test_whoever_was_in_a_part_stays_in_it_whoever_comes_or_goes_and_whatever_is_set(seed, visits):
    memory, was = Memory(seed), {}
    for numbers, share, least in visits:
        names = cases_of(numbers)
        try:
            division = divide(names, HeldOut(share=share), least, memory)
        except InputDataError:  # only those that were held out are left in the folder
            assert numbers
            assert all(was.get(name) for name in names)
            continue
        memory = division.memory
        for name in names:
            assert was.setdefault(name, name in division.held_out) == (name in division.held_out)
        assert divide(names, HeldOut(share=share), least, memory) == division


@given(SEEDS, st.floats(0.05, 0.6), st.sets(st.integers(0, 99), min_size=10, max_size=30))
def test_who_comes_later_is_drawn_alone_in_whatever_company(seed, share, later):
    """Once both parts have their floor, a newcomer's part depends on nobody else."""
    setting, first = HeldOut(share=share), cases_of(range(100, 120))
    memory = divide(first, setting, 2, Memory(seed)).memory
    together = divide([*first, *cases_of(later)], setting, 2, memory)
    for number in later:
        alone = divide([*first, *cases_of({number})], setting, 2, memory)
        (name,) = cases_of({number})
        assert (name in alone.held_out) == (name in together.held_out)


def test_newcomers_are_drawn_by_the_share():
    setting = HeldOut(share=0.2)
    memory = divide(cases_of(range(10)), setting, 2, Memory(SEED)).memory
    division = divide(cases_of(range(2010)), setting, 2, memory)
    assert 0.17 < division.held_out_subjects / 2010 < 0.23


def test_other_sites_choose_others():
    held_out = {
        divide(cases_of(range(30)), HeldOut(), 2, Memory(bytes([n] * 32))).held_out
        for n in range(5)
    }
    assert len(held_out) == 5


@pytest.mark.parametrize(("subjects", "held_out"), [(3, 0), (FEWEST, 2), (6, 2), (20, 4), (50, 10)])
def test_a_small_site_holds_nobody_out_and_a_larger_one_its_share(subjects, held_out):
    division = divide(cases_of(range(subjects)), HeldOut(share=0.2), 2, Memory(SEED))
    assert division.held_out_subjects == held_out


def test_a_site_that_began_with_too_few_holds_out_those_who_come():
    begun = divide(cases_of(range(3)), HeldOut(), 2, Memory(SEED))
    assert "fewer than 4" in begun.says
    grown = divide(cases_of(range(5)), HeldOut(), 2, begun.memory)
    assert grown.held_out == set(cases_of({3, 4}))


def test_those_who_were_trained_on_stay_so_when_the_share_is_raised_and_it_is_said():
    names = cases_of(range(10))
    memory = divide(names, HeldOut(share=0.0), 2, Memory(SEED)).memory
    division = divide(names, HeldOut(share=0.5), 2, memory)
    assert division.held_out == frozenset()
    assert "all were trained on before" in division.says


@pytest.mark.parametrize("later", [HeldOut(share=0.0), HeldOut(subjects=("sub-77",))])
def test_those_who_were_held_out_stay_so_under_another_setting_and_it_is_said(later):
    names = cases_of(range(10))
    first = divide(names, HeldOut(share=0.3), 2, Memory(SEED))
    division = divide([*names, *cases_of({77})], later, 2, first.memory)
    assert first.held_out <= division.held_out
    assert "3 of them since an earlier setting" in division.says


def test_listed_subjects_are_held_out_with_all_their_images_and_nobody_else():
    names = cases_of(range(8), images=2)
    division = divide(names, HeldOut(share=0.9, subjects=("sub-3", "sub-5")), 2, Memory(SEED))
    assert subjects_of(division.held_out) == {"sub-3", "sub-5"}
    assert division.says == (
        "2 of 8 subjects (4 of 16 images): listed in policy.toml, [held_out] subjects"
    )


@pytest.mark.parametrize(
    ("listed", "got"),
    [(("sub-3", "sub-99"), "sub-99"), (tuple(f"sub-{n}" for n in range(4)), "all 4 held out")],
)
def test_a_list_that_cannot_be_kept_is_refused(listed, got):
    with pytest.raises(InputDataError) as caught:
        divide(cases_of(range(4)), HeldOut(subjects=listed), 1, Memory(SEED))
    assert caught.value.got == got


def test_whoever_was_trained_on_cannot_be_listed_later():
    names = cases_of(range(4))
    memory = divide(names, HeldOut(share=0.0), 1, Memory(SEED)).memory
    with pytest.raises(InputDataError, match="was trained on before") as caught:
        divide(names, HeldOut(subjects=("sub-2",)), 1, memory)
    assert caught.value.got == "sub-2"


def test_a_new_image_of_a_subject_joins_the_others_of_it():
    names = cases_of(range(8))
    first = divide(names, HeldOut(share=0.3), 2, Memory(SEED))
    more = cases_of(range(8), images=3)
    division = divide(more, HeldOut(share=0.3), 2, first.memory)
    assert subjects_of(division.held_out) == subjects_of(first.held_out)


def test_another_rule_for_subjects_moves_no_image():
    names = [f"ward{n % 2}-patient{n}" for n in range(10)]
    by_patient = HeldOut(share=0.3, subject=r"-(patient\d+)")
    first = divide(names, by_patient, 2, Memory(SEED))
    by_name = divide(names, HeldOut(share=0.3), 2, first.memory)
    assert by_name.held_out == first.held_out
    with pytest.raises(InputDataError, match="images that were trained on and images"):
        divide(names, HeldOut(share=0.3, subject=r"^(ward\d)"), 2, first.memory)


@pytest.mark.parametrize("pattern", ["(", r"^(person\d+)"])
def test_a_rule_that_does_not_fit_the_names_is_refused(pattern):
    with pytest.raises(InputDataError):
        divide(cases_of(range(6)), HeldOut(subject=pattern), 2, Memory(SEED))
