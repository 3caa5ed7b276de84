from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from common.settings import EvaluationSettings, PoseSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.search import search_in_groups
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, build_cases_2d
from site_client.agent.tasks.tracking import Tracking
from site_client.agent.tasks.views import Views
from tests.made.sequences import make_sequence

SEARCHES = EvaluationSettings(starts=2, poses=1, most_steps=40)


def task_of(sequences=2, frames=4, seed=0):
    """Made sequences, laid out for following."""
    rng, cases, names = np.random.default_rng(seed), [], []
    for k in range(sequences):
        made = make_sequence(rng, frames, 48)
        for t, (frame, at) in enumerate(zip(made.frames, made.places, strict=True)):
            cases.append(Case2D(f"{k}_{t}", frame[None], (1.0, 1.0), at[None]))
            names.append(str(k))
    views = Views(13, (1.0, 3.0))
    poses = PoseSettings(shift_mm=3.0)
    return Tracking(build_cases_2d(cases), names, Ladder((2.0, 1.0), (4.0, 1.0)), views, poses)


@pytest.fixture(scope="module")
def task():
    return task_of()


def test_whoever_knows_every_reward_follows_through_all_frames(task):
    report = evaluate(task, task.rewards_of_all, SEARCHES, 1, mean_parameters(task))
    for summary in (report.posed["0"], report.native["0"]):
        assert summary.searches == 2 * 3 * 2, "every frame but the first"
        assert summary.mean < 1.5
        assert summary.prior > summary.mean


def test_every_frame_begins_where_the_one_before_was_found(task):
    start = task.starts(np.random.default_rng(1), 2, posed=True)
    ended, agreed = search_in_groups(task, task.rewards_of_all, start, 2, SEARCHES)
    by_case = {int(one["case"]): one for one in agreed}
    for case, one in by_case.items():
        earlier = by_case.get(int(task._before[case]))
        if earlier is None:
            truth = task._marks(agreed[agreed["case"] == case], task._first)[0]
            np.testing.assert_allclose(one["before"], truth, atol=1e-3)
        else:
            np.testing.assert_array_equal(one["before"], earlier["position"])
    assert (ended["case"] == agreed["case"][:, None]).all()


def test_a_wrong_answer_is_handed_on_and_not_the_truth(task):
    """Values that always go right: each frame begins further from the truth."""
    start = task.starts(np.random.default_rng(2), 1, posed=False)
    right = np.eye(task.actions, dtype=np.float32)[:1]
    _, agreed = search_in_groups(
        task, lambda s: np.repeat(right, len(s), axis=0), start, 1, SEARCHES
    )
    way = task.parameters(agreed)[:, 0].reshape(2, 3)
    edge = task.native(agreed)[:, 0].reshape(2, 3)
    assert ((np.diff(way, axis=1) > 1) | (edge[:, 1:] > 18)).all()


def test_the_frames_of_a_sequence_share_a_pose(task):
    start = task.starts(np.random.default_rng(3), 2, posed=True)
    for first in np.unique(task._first):
        of = start[task._first[start["case"]] == first]
        assert len(np.unique(of["pose"], axis=0)) == 1
        assert len(np.unique(of["track"])) == 1
    assert len(np.unique(start["track"])) == 2


def test_what_was_followed_is_seen_beside_the_frame(task):
    at = task.starts(np.random.default_rng(4), 1, posed=False)
    seen = task.observe(at)
    assert seen.shape == (len(at), 4, 13, 13)
    other = at.copy()
    other["before"] += 5
    changed = task.observe(other)
    np.testing.assert_array_equal(changed[:, :2], seen[:, :2])
    assert (changed[:, 2:] != seen[:, 2:]).any()


def test_the_answer_that_never_looks_is_the_mean_way(task):
    at = task.starts(np.random.default_rng(5), 1, posed=False)
    mean = mean_parameters(task)
    np.testing.assert_allclose(mean[0], task.targets(at).mean(axis=0), atol=1e-6)
    task.move_to(at, np.zeros((len(at), 2), np.float32))
    moved = task.report(at)["moved_mm"]
    np.testing.assert_allclose(task.errors(at), moved, atol=1e-3)


def test_the_truth_has_no_error(task):
    at = task.starts(np.random.default_rng(6), 2, posed=True)
    task.move_to(at, task.targets(at).astype(np.float32))
    np.testing.assert_allclose(task.errors(at), 0, atol=1e-3)
    # What experience is named by knows it, too: parameters are a way, places are not.
    np.testing.assert_allclose(task.steps_away(at), 0, atol=1e-3)


def test_a_frame_alone_follows_itself(task):
    single = task_of(sequences=1, frames=1)
    at = single.draw(np.random.default_rng(7), 20)
    assert (single._before[at["case"]] == at["case"]).all()
    assert (np.linalg.norm(at["before"] - single.places(at), axis=1) < 2).all()
    assert len(single.starts(np.random.default_rng(8), 1, posed=False)) == 1


def test_without_a_landmark_in_the_first_frame_there_is_nothing_to_follow():
    pixels = np.zeros((1, 20, 20), np.uint8)
    cases = [Case2D("a", pixels, (1.0, 1.0), np.full((1, 2), np.nan))]
    cases.append(Case2D("b", pixels, (1.0, 1.0), np.array([[5.0, 5.0]])))
    with pytest.raises(InputDataError, match="nothing to follow"):
        Tracking(build_cases_2d(cases), ["x", "x"], Ladder((1.0,), (1.0,)), Views(9))
