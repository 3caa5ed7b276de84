"""Every architecture's parameters, said without torch, are torch's own: names, order, shapes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.model import initial_weights, weight_shapes, weights_digest
from common.plan import parse_plan
from common.settings import MisfitError, NetworkSettings, Space, parameters_of
from site_client.agent import networks

# By architecture: axes of what it looks at, and the shortest side.
VIEWS = {
    "triplanar": (2, 2),
    "planar": (2, 2),
    "paper2d": (2, 20),
    "volume-light": (3, 2),
    "network3d": (3, 34),
    "commnet": (3, 34),
    "collab": (3, 34),
}
KIND_OF = {
    "triplanar": "landmark-3d",
    "planar": "landmark-2d",
    "paper2d": "landmark-2d",
    "volume-light": "landmark-3d-cube",
    "network3d": "landmark-3d-cube",
    "commnet": "multi-agent-3d",
    "collab": "multi-agent-3d",
}
every_architecture = pytest.mark.parametrize("name", VIEWS)


def space_of(name, side=None, *, channels=3, actions=6, levels=2, heads=1, agents=1):
    axes, least = VIEWS[name]
    labels = tuple(f"L{k}" for k in range(heads * agents))
    shape = (channels, *(side or least,) * axes)
    return Space(shape, actions, levels, labels, (9.0,) * levels, agents)


@every_architecture
@pytest.mark.parametrize("axes", [2, 3])
def test_what_decides_absence_comes_last_and_belongs_to_landmarks(name, axes):
    network, space = network_of(name), replace(space_of(name, heads=3), absence=axes)
    assert ours(network, space) == torchs(network, space)
    assert ours(network, space)[-3:] == [
        ("absence.places", (3, axes)),
        ("absence.shares", (3,)),
        ("absence.weights", (8,)),
    ]
    rows = {n: p.branch_rows for n, p in parameters_of(network, space).items()}
    assert [rows[f"absence.{part}"] for part in ("places", "shares", "weights")] == [1, 1, 0]


def network_of(name, **changes):
    return NetworkSettings(architecture=name, **({"width": 4, "hidden": (6, 5)} | changes))


def undrawn(network, space):
    """The site's network on torch's meta device: sizes, and no memory."""
    with torch.device("meta"):
        return networks._undrawn(network, space)


def torchs(network, space):
    return [(name, tuple(v.shape)) for name, v in undrawn(network, space).state_dict().items()]


def ours(network, space):
    return [(name, value.shape) for name, value in parameters_of(network, space).items()]


@every_architecture
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize(("heads", "agents"), [(1, 1), (3, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("attention", [False, True])
def test_names_order_and_shapes_are_those_of_torchs_state_dict(
    name, dueling, heads, agents, attention
):
    network = network_of(name, dueling=dueling, attention=attention and name == "commnet")
    space = space_of(name, heads=heads, agents=agents)
    assert ours(network, space) == torchs(network, space)


@given(
    name=st.sampled_from(list(VIEWS)),
    above=st.integers(0, 14),
    channels=st.integers(1, 12),
    sizes=st.fixed_dictionaries(
        {
            "actions": st.integers(2, 13),
            "levels": st.integers(1, 6),
            "heads": st.integers(1, 5),
            "agents": st.integers(1, 5),
        }
    ),
    width=st.integers(4, 64),
    hidden=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    dueling=st.booleans(),
    attention=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_so_they_are_whatever_is_seen_asked_and_chosen(
    name, above, channels, sizes, width, hidden, dueling, attention
):
    network = network_of(
        name,
        width=width,
        hidden=tuple(hidden),
        dueling=dueling,
        attention=attention and name == "commnet",
    )
    channels = 3 if name == "triplanar" else channels
    space = space_of(name, VIEWS[name][1] + above, channels=channels, **sizes)
    assert ours(network, space) == torchs(network, space)


@every_architecture
def test_too_small_a_view_and_one_of_other_axes_are_refused_by_both(name):
    axes, least = VIEWS[name]
    network, fitting = network_of(name), space_of(name)
    parameters_of(network, fitting)
    for bad in (
        (3, *(least - 1,) * axes),
        (3, *(least,) * (axes - 1), least - 1),
        (3, *(40,) * (5 - axes)),
    ):
        space = replace(fitting, shape=bad)
        with pytest.raises(MisfitError) as refused:
            parameters_of(network, space)
        assert refused.value.field == "task.roi"
        with pytest.raises(InputDataError, match="does not fit the network"):
            undrawn(network, space)


@every_architecture
@pytest.mark.parametrize("dueling", [False, True])
def test_first_values_are_drawn_as_the_sites_networks_draw_their_own(name, dueling):
    """Constants are equal; what is drawn fills the interval or has the deviation that is said."""
    network = network_of(name, dueling=dueling, attention=name == "commnet")
    # Enough agents for their attention to have a deviation.
    space = space_of(name, heads=2, agents=8)
    drawn = networks.build_network(network, space, torch.Generator().manual_seed(0)).state_dict()
    for key, parameter in parameters_of(network, space).items():
        values = drawn[key].numpy().ravel()
        if parameter.first == "constant":
            assert (values == np.float32(parameter.scale)).all(), key
        elif parameter.first == "normal":
            assert 0.3 < np.square(values).mean() / parameter.scale**2 < 3, key
        else:
            # Of n even draws the largest is this small once in a million.
            least = 1e-6 ** (1 / values.size)
            assert least <= np.abs(values).max() / parameter.scale <= 1 + 1e-6, key


def plan_of(name, seed=7, **network):
    """A training plan whose agent has the architecture, as small as it may be."""
    return parse_plan(
        {
            "name": "any",
            "seed": seed,
            "task": {
                "kind": KIND_OF[name],
                "landmarks": ["A", "B"],
                "roi": max(9, VIEWS[name][1]),
            },
            "network": {"architecture": name, "width": 4, "hidden": [8], **network},
        }
    )


@every_architecture
def test_first_weights_are_finite_reproducible_and_another_seeds_are_others(name):
    plan = plan_of(name)
    weights = initial_weights(plan)
    assert {key: value.shape for key, value in weights.items()} == weight_shapes(plan)
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in weights.values())
    digests = [weights_digest(initial_weights(plan_of(name, seed))) for seed in (7, 8)]
    assert weights_digest(weights) == digests[0] != digests[1]
    for key, parameter in parameters_of(plan.network, plan.space).items():
        if parameter.first == "uniform":
            assert np.abs(weights[key]).max() <= np.float32(parameter.scale)
            assert np.abs(weights[key]).mean() == pytest.approx(
                parameter.scale / 2, abs=3 * parameter.scale / math.sqrt(weights[key].size)
            )


@pytest.mark.parametrize(
    ("name", "network", "digest"),
    [
        (
            "planar",
            {"dueling": True},
            "ecda5145a6ac5aa8aee31939424a87ec44646075375085548c9bacfedabcb64a",
        ),
        ("paper2d", {}, "58029f518579da311ea6ea4e334427c95a6706e634f24d9eb902d746cf00675a"),
        (
            "commnet",
            {"attention": True, "dueling": True},
            "545b6bd7f0bc8e5beadc154126575fafc7eca83ed5ed3449339a9d764a53d531",
        ),
    ],
)
def test_first_weights_of_every_family_are_frozen_for_all_time(name, network, digest):
    assert weights_digest(initial_weights(plan_of(name, **network))) == digest


@pytest.mark.parametrize("name", ["paper2d", "network3d", "commnet", "collab"])
def test_a_plan_whose_view_is_too_small_for_its_network_is_refused(name):
    least = VIEWS[name][1]
    plan = plan_of(name).model_dump(mode="json")
    plan["task"]["roi"] = least - 1
    with pytest.raises(InputDataError, match=rf"task\.roi must be {least} or more for {name}"):
        parse_plan(plan)
