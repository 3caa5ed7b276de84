"""Labels that too few cases have are labels that a site lacks; the floor holds for each."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from common.plan import parse_plan
from site_client.imaging.boxes import Boxes
from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.imaging.volumes import Volume
from site_client.worker.dry_run import rehearse
from site_client.worker.lacking import cases_having, labels_searched, with_enough_of_each
from site_client.worker.site_cases import read_site_cases
from tests.conftest import SMALL_PLAN, write_case

NAMES = ("A", "B", "C")
NOWHERE = [np.nan] * 3


def cases_of(*having):
    """A case for each word: the landmarks that it has."""
    volume = Volume(np.zeros((8, 8, 8), np.uint8), 1.0, (0.0, 0.0, 0.0), np.eye(3))
    marked = [
        np.array([[k, 2.0, 3.0] if name in names else NOWHERE for k, name in enumerate(NAMES)])
        for names in having
    ]
    return Cases(NAMES, volumes=tuple(Case(f"c{k}", volume, m) for k, m in enumerate(marked)))


def test_a_label_of_too_few_cases_counts_as_missing_in_all():
    cases = with_enough_of_each(cases_of("AB", "A", "AC", "B"), 2)
    assert cases_having(cases).tolist() == [3, 2, 0]
    assert len(cases) == 4


def test_a_case_that_is_left_with_nothing_is_left_out():
    cases = with_enough_of_each(cases_of("A", "A", "C"), 2)
    assert [case.name for case in cases.each] == ["c0", "c1"]


def test_what_is_enough_stays_as_it_was():
    cases = cases_of("AB", "AB", "A")
    assert with_enough_of_each(cases, 2) is cases


def test_a_site_without_enough_of_anything_is_refused():
    with pytest.raises(InputDataError, match="too few cases") as refused:
        with_enough_of_each(cases_of("A", "B", "C"), 2)
    assert "c0" not in str(refused.value)


def test_boxes_of_too_few_images_are_taken_out_and_their_images_stay():
    corner = np.zeros((1, 2, 3))
    each = [("A",), ("A", "B"), ("A",), ()]
    boxes = tuple(Boxes(labels, np.repeat(corner, len(labels), axis=0)) for labels in each)
    bare = cases_of("A", "A", "A", "A")
    cases = with_enough_of_each(Cases(("A", "B"), volumes=bare.volumes, boxes=boxes), 2)
    assert [b.labels for b in cases.boxes] == [("A",), ("A",), ("A",), ()]
    assert [len(b.corners_mm) for b in cases.boxes] == [1, 1, 1, 0]


# From a folder.


@pytest.fixture
def folder(tmp_path):
    """Three heads with A; two of them with B; none with C."""
    for number in range(3):
        write_case(tmp_path, f"case-{number}", number)
    path = tmp_path / "case-2.mrk.json"
    write_landmarks(path, {"A": read_landmarks(path)["A"]})
    return tmp_path


def plan_of(names="AB", missing="allow", kind="landmark-3d", least=2, **sections):
    task = {"kind": kind, "landmarks": list(names), "missing": missing}
    ladder = SMALL_PLAN["ladder"]
    network = {"width": 4} if kind == "landmark-3d" else {}
    return parse_plan(
        SMALL_PLAN
        | {"task": SMALL_PLAN["task"] | task, "ladder": ladder, "network": network}
        | {"limits": {"min_images": least}}
        | sections
    )


def read(folder, plan, least=1):
    return read_site_cases(folder, plan, lambda *_: None, least=least)


@pytest.mark.parametrize("kind", ["landmark-3d", "landmark-3d-cube"])
def test_what_a_folder_lacks_is_not_searched_for(folder, kind):
    cases = read(folder, plan_of("ABC", kind=kind))
    assert labels_searched(cases.task).tolist() == [1, 1, 0]
    assert cases.task.heads == 3


@pytest.mark.parametrize("kind", ["landmark-3d", "landmark-3d-cube"])
def test_without_the_option_a_case_that_lacks_a_landmark_is_refused_by_name(folder, kind):
    with pytest.raises(InputDataError, match=r"case-2: B"):
        read(folder, plan_of(missing="refuse", kind=kind))


@pytest.mark.parametrize(("plans", "sites"), [(3, 1), (2, 3)])
def test_the_stricter_of_the_plans_and_the_sites_floor_holds_for_each_label(folder, plans, sites):
    cases = read(folder, plan_of(least=plans)).with_enough_of_each(max(sites, plans))
    assert labels_searched(cases.task).tolist() == [1, 0]


# In a rehearsal.


@pytest.mark.parametrize(
    "change",
    [{"task": SMALL_PLAN["task"] | {"missing": "allow"}}, {"network": {"private_heads": True}}],
)
def test_a_rehearsal_shows_what_would_leave_and_attacks_it(make_site, change):
    site = make_site(images=6, **change)
    rehearsal = rehearse(site.folder, site.plan)
    assert rehearsal.allowed
    update = next(f for f in rehearsal.findings if f.record_type == "ModelUpdate")
    names = {array.name for array in update.arrays}
    assert ("labels" in names) == ("task" in change)
    assert ("heads.weight" in names) == ("task" in change)
    weights = [array.l2 for array in update.arrays if array.name != "labels"]
    assert update.l2 == pytest.approx(np.linalg.norm(weights))
    assert rehearsal.exposure.membership is not None
