"""Names of situations: every kind of task says how far from its aim a search stands."""

from __future__ import annotations

import numpy as np
import pytest

from common.plan.experience import Experience
from site_client.agent.keys import ExperienceKeys, codec_of

TASKS = (
    *("landmark2d", "triplanar", "landmark3d", "multi_agent", "seeds", "tracking"),
    *("box", "turned_box", "plane", "registration"),
)
BOXES = {"box": 4, "turned_box": 4}
"""Of these, the actions that move and change nothing else."""


def drawn(task, n=400):
    at = task.draw(np.random.default_rng(7), n)
    at["action"] = np.random.default_rng(8).integers(0, task.actions, at["action"].shape)
    return at


@pytest.mark.parametrize("name", TASKS)
def test_a_step_along_an_axis_is_a_step_of_the_offset(make_task, name):
    task = make_task(name)
    at = drawn(task)
    reached = task.step(at).reached
    before, after = task.steps_away(at), task.steps_away(reached)
    assert before.shape == (len(at), task.actions // 2)
    action = at["action"] if task.agents == 1 else at["action"][:, 0]
    # Where a box's size changes, its own size is the unit of the way to its centre.
    axes = task.actions // 2
    steps = action < BOXES.get(name, 2 * axes)
    moved = (task.parameters(at) != task.parameters(reached)).reshape(len(at), -1).any(axis=1)
    if task.agents > 1:
        moved = (task.parameters(at)[:, 0] != task.parameters(reached)[:, 0]).any(axis=1)
    rows = np.flatnonzero(moved & steps & (at["level"] == reached["level"]))
    assert len(rows) > 100
    wanted = np.zeros((len(rows), axes))
    wanted[np.arange(len(rows)), action[rows] // 2] = np.where(action[rows] % 2, -1.0, 1.0)
    exact = (np.abs((after - before)[rows] - wanted) < 2e-3).all(axis=1)
    # Of several boxes, another may be the nearest after a step.
    assert exact.mean() > (0.9 if name in BOXES else 0.999)


@pytest.mark.parametrize("name", TASKS)
def test_at_its_target_a_search_is_no_step_away(make_task, name):
    task = make_task(name)
    at = drawn(task)
    task.move_to(at, task.targets(at).astype(np.float32))
    np.testing.assert_allclose(task.steps_away(at), 0, atol=2e-3)


def test_a_trace_is_as_far_away_as_its_rewards_say(make_task):
    """They are the approach to what lies ahead, in steps."""
    task = make_task("centreline")
    at = drawn(task)
    reached, rewards, ended = task.step(at)
    near = np.linalg.norm(task.steps_away(at), axis=1)
    # Turned by its new heading, the same way has the same length.
    gap = np.linalg.norm(reached["position"] - at["position"], axis=1) / task.settings.step_mm
    going = ~ended & (np.abs(rewards) < 1)
    assert going.sum() > 50
    assert np.all(np.abs(rewards[going]) <= gap[going] + 1e-3)
    assert near.max() < 10
    assert near.min() > 0.1


@pytest.mark.parametrize("name", [*TASKS, "centreline", "glimpses"])
def test_situations_alike_but_for_the_action_share_their_place_and_not_their_offset(
    make_task, name
):
    task = make_task(name)
    at = drawn(task)
    other = at.copy()
    other["action"] = (at["action"] + 1) % task.actions
    by_place = ExperienceKeys(task, codec_of(task, Experience(key="place")))
    by_offset = ExperienceKeys(task, codec_of(task))
    np.testing.assert_array_equal(by_place(at), by_place(other))
    assert (by_offset(at) != by_offset(other)).all()
    assert len(np.unique(by_offset(at))) > 20
