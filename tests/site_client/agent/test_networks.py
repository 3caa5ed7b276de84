"""Every architecture: one signature, deterministic, heads and agents kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.model import weight_shapes
from common.settings import NetworkSettings
from site_client.agent.networks import PLAIN, Execution, QNetwork, build_network, fastest


@dataclass(frozen=True)
class Sizes:
    shape: tuple[int, ...]
    actions: int = 6
    heads: int = 2
    levels: int = 3
    agents: int = 1


CUTS, IMAGE, FRAMES = Sizes((3, 21, 21)), Sizes((1, 21, 21), 4), Sizes((4, 45, 45), 4)
VOLUME, PUBLISHED = Sizes((1, 17, 17, 17)), Sizes((4, 45, 45, 45), heads=1)
SMALL_PUBLISHED = Sizes((2, 34, 34, 34))
FITTING = {
    "triplanar": CUTS,
    "planar": IMAGE,
    "paper2d": FRAMES,
    "volume-light": VOLUME,
    "network3d": SMALL_PUBLISHED,
    "commnet": SMALL_PUBLISHED,
    "collab": SMALL_PUBLISHED,
}
LIGHT = ("triplanar", "planar", "volume-light")
every_architecture = pytest.mark.parametrize("name", FITTING)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network_of(name: str, space: Sizes, seed: int = 0, **more: object) -> QNetwork:
    return build_network(
        NetworkSettings.model_validate({"architecture": name} | more), space, generator(seed)
    )


def scenes(space: Sizes, n: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    agents = (space.agents,) if space.agents > 1 else ()
    numbers = torch.arange(n)
    observations = torch.rand((n, *agents, *space.shape), generator=generator(seed))
    return observations, numbers % space.levels, numbers % space.heads


@every_architecture
@pytest.mark.parametrize("agents", [1, 3])
@pytest.mark.parametrize("dueling", [False, True])
def test_every_architecture_gives_one_float32_value_per_action_of_every_agent(
    name, agents, dueling
):
    space = replace(FITTING[name], agents=agents)
    values = network_of(name, space, dueling=dueling)(*scenes(space, 4))
    axes = (4, 3, space.actions) if agents == 3 else (4, space.actions)
    assert tuple(values.shape) == axes
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()


@every_architecture
def test_equal_generators_give_equal_networks_and_nothing_is_drawn_globally(name):
    before = torch.get_rng_state()
    first, same, other = (network_of(name, FITTING[name], seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for (key, a), b, c in zip(
        first.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), key
        if key.endswith(".weight") and a.ndim > 1:
            assert not torch.equal(a, c), key
    assert list(first.buffers()) == []


@every_architecture
def test_a_row_does_not_depend_on_its_neighbours_in_the_batch(name):
    space = replace(FITTING[name], agents=2)
    network = network_of(name, space, dueling=True)
    observations, level, head = scenes(space, 5)
    together = network(observations, level, head)
    alone = torch.cat(
        [network(observations[i : i + 1], level[i : i + 1], head[i : i + 1]) for i in range(5)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_architecture
def test_only_the_branch_that_was_asked_learns(name):
    """The outputs of another head of a two-agent network get no gradient at all."""
    space = replace(FITTING[name], agents=2)
    network = network_of(name, space, dueling=True)
    observations, level, _ = scenes(space, 3)
    network(observations, level, torch.zeros(3, dtype=torch.long)).square().sum().backward()
    gradient = network.get_submodule("heads").get_parameter("bias").grad
    asked, other = gradient.view(2, -1)
    assert asked.abs().min() > 0
    assert other.abs().max() == 0


@pytest.mark.parametrize("name", ["network3d", "commnet", "collab"])
def test_private_layers_answer_as_a_loop_over_heads_would(name):
    """Gathering every row's head gives what asking each head in turn gives."""
    space = replace(FITTING[name], agents=2, heads=3)
    network = network_of(name, space)
    observations, level, head = scenes(space, 3)
    mixed = network(observations, level, head)
    for wanted in range(3):
        alone = network(observations, level, torch.full_like(head, wanted))
        torch.testing.assert_close(
            mixed[head == wanted], alone[head == wanted], rtol=1e-4, atol=1e-5
        )
        assert not torch.allclose(mixed[head != wanted], alone[head != wanted], atol=1e-3)


@every_architecture
def test_dueling_values_are_the_states_value_plus_centred_advantages(name):
    """The mean over the actions is the state's value: adding to all advantages changes nothing."""
    network = network_of(name, FITTING[name], dueling=True)
    case = scenes(FITTING[name], 4)
    before = network(*case)
    with torch.no_grad():
        network.get_submodule("heads").get_parameter("bias").add_(5.0)
    torch.testing.assert_close(network(*case), before, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        network.get_submodule("state").get_parameter("bias").add_(2.0)
    torch.testing.assert_close(network(*case), before + 2, rtol=1e-4, atol=1e-4)


@every_architecture
def test_light_networks_see_the_level_and_published_ones_do_not(name):
    network = network_of(name, FITTING[name])
    observations, _, head = scenes(FITTING[name], 3)
    coarse, fine = (network(observations, torch.full((3,), rung), head) for rung in (0, 2))
    assert torch.equal(coarse, fine) == (name not in LIGHT)


def test_the_published_3d_network_has_its_published_number_of_parameters():
    network = network_of("network3d", PUBLISHED)
    assert sum(p.numel() for p in network.parameters()) == 550_860


@pytest.mark.parametrize("agents", [2, 5])
def test_a_communicating_network_doubles_the_inputs_of_its_dense_layers(agents):
    space = replace(PUBLISHED, agents=agents)
    alone, talking, attending = (
        sum(p.numel() for p in network.parameters())
        for network in (
            network_of("network3d", space),
            network_of("commnet", space),
            network_of("commnet", space, attention=True),
        )
    )
    assert talking - alone == agents * (512 * 256 + 256 * 128 + 128 * 6)
    assert attending - talking == 3 * agents * agents


@pytest.mark.parametrize("attention", [False, True])
def test_agents_hear_each_other_only_in_a_communicating_network(attention):
    space = replace(SMALL_PUBLISHED, agents=2)
    observations, level, head = scenes(space, 2)
    changed = observations.clone()
    changed[:, 1] = 0
    for name, hears in (("commnet", True), ("network3d", False), ("collab", False)):
        network = network_of(name, space, attention=attention and hears)
        first, second = network(observations, level, head), network(changed, level, head)
        assert torch.allclose(first[:, 0], second[:, 0]) == (not hears), name
        assert not torch.allclose(first[:, 1], second[:, 1]), name


def test_equal_attention_is_the_mean():
    space = replace(SMALL_PUBLISHED, agents=3)
    mean, attending = (network_of("commnet", space, attention=on) for on in (False, True))
    weights = mean.state_dict() | {f"attend{i}": torch.full((3, 3), 0.7) for i in range(3)}
    attending.load_state_dict(weights)
    case = scenes(space, 2)
    torch.testing.assert_close(mean(*case), attending(*case))


def test_the_papers_2d_network_has_four_convolutions_and_four_dense_layers():
    shapes = [tuple(p.shape) for p in network_of("paper2d", FRAMES).parameters() if p.ndim > 1]
    assert [s[:2] for s in shapes if len(s) == 4] == [(32, 4), (32, 32), (64, 32), (64, 64)]
    assert [s for s in shapes if len(s) == 2] == [(512, 256), (256, 512), (128, 256), (8, 128)]


def test_three_cuts_have_the_names_and_shapes_of_the_federations_weights(plan):
    task = Sizes(
        (3, plan.task.roi, plan.task.roi),
        heads=len(plan.task.landmarks),
        levels=len(plan.ladder.scales),
    )
    network = build_network(plan.network, task, generator())
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes == weight_shapes(plan)
    assert list(shapes) == list(weight_shapes(plan))


@every_architecture
def test_the_fast_way_computes_the_same_up_to_rounding_and_its_gradients_point_the_same_way(name):
    space = FITTING[name]
    network, case = network_of(name, space), scenes(space, 3)
    found = []
    for execution in (PLAIN, Execution(channels_last=True), Execution(True, True)):
        network.execution = execution
        network.zero_grad()
        values = network(*case)
        (values - 1).square().sum().backward()
        slopes = torch.cat([p.grad.flatten() for p in network.parameters()])
        assert values.dtype == slopes.dtype == torch.float32
        found.append((values.detach(), slopes))
    (plain, straight), (layout, _), (fast, rounded) = found
    torch.testing.assert_close(plain, layout, rtol=1e-4, atol=1e-5)
    assert (plain - fast).abs().max() < 0.05 * plain.abs().max()
    assert torch.cosine_similarity(straight, rounded, dim=0) > 0.95


def test_sixteen_bits_are_only_chosen_together_with_the_layout_that_suits_them():
    assert fastest() in (PLAIN, Execution(channels_last=True, bfloat16=True))


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(LIGHT),
    side=st.integers(2, 24),
    width=st.integers(4, 9),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    heads=st.integers(1, 3),
)
def test_light_networks_take_any_size(name, side, width, hidden, heads):
    dims = len(FITTING[name].shape) - 1
    space = replace(FITTING[name], shape=(FITTING[name].shape[0],) + (side,) * dims, heads=heads)
    network = network_of(name, space, width=width, hidden=tuple(hidden))
    assert tuple(network(*scenes(space, 2)).shape) == (2, space.actions)


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [
        ("triplanar", (1, 21, 21), "3 cuts"),
        ("planar", (1, 21, 21, 21), "2 axes"),
        ("volume-light", (3, 21, 21), "3 axes"),
        ("network3d", (4, 45, 45), "3 axes"),
        ("network3d", (4, 33, 45, 45), "34 or longer"),
        ("commnet", (4, 33, 45, 45), "34 or longer"),
        ("paper2d", (4, 19, 45), "20 or longer"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(name, shape, word):
    with pytest.raises(InputDataError, match=f"architecture {name}.*{word}"):
        network_of(name, Sizes(shape))


def test_attention_without_anyone_to_listen_to_is_refused():
    with pytest.raises(InputDataError, match=r"network\.attention"):
        network_of("collab", SMALL_PUBLISHED, attention=True)


@pytest.mark.parametrize("name", ["planar", "volume-light"])
def test_networks_learn_what_they_are_shown(name):
    """A few steps of Adam fit a dozen values that differ by head."""
    space = FITTING[name]
    network, case = network_of(name, space, dueling=True), scenes(space, 3)
    wanted = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).normal(size=(3, 1)))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = (network(*case) - wanted.float()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_acting_in_parts_gives_what_learning_at_once_gives():
    """Where no gradients are kept, large batches are looked at a part at a time."""
    space = replace(VOLUME, shape=(4, 45, 45, 45))
    network, case = network_of("volume-light", space, width=4), scenes(space, 7)
    at_once = network(*case)
    with torch.no_grad():
        in_parts = network(*case)
    torch.testing.assert_close(at_once.detach(), in_parts, rtol=1e-4, atol=1e-5)
