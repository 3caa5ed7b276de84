"""A plan beside the bounds of a ``policy.toml``: which field is held to which number.

For a table that a person reads. What refuses a plan is the site's own check, which
reads the same fields; ``tests/site_client/test_plan_bounds.py`` holds the two together,
and ``USUAL`` to the policy that ``cairn-site join`` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Final, Literal

from common.plan import RUNS, FederationPlan
from common.schedule import schedule
from common.settings import KINDS, AgentSettings, sections_of
from common.wire.bounds import draws_behind
from common.wire.rules import answers_of
from common.words.leaving import leavings

Way = Literal["least", "most", "within", "among", "floor"]
Kinds = tuple[str, ...]
_TRAINS: Final[Kinds] = ("training",)
_MODEL: Final[Kinds] = ("training", "no-op")
_PIXELS: Final[Kinds] = ("pixels",)
_EMBEDS: Final[Kinds] = ("embed",)
_SLIDES: Final[Kinds] = _PIXELS + _EMBEDS
_ALL: Final[Kinds] = _MODEL + _SLIDES

_RANGES: Final[tuple[tuple[str, str, Kinds, tuple[float, float]], ...]] = (
    ("task.landmarks", "landmarks", _MODEL, (1, 32)),
    ("task.spacing_mm", "spacing_mm", _TRAINS, (0.5, 4.0)),
    ("task.roi", "roi", _MODEL, (9, 65)),
    ("network.width", "width", _MODEL, (4, 32)),
    ("ladder.scales", "scales", _TRAINS, (0.5, 8.0)),
    ("network.hidden", "hidden", _MODEL, (8, 512)),
    ("ladder.steps_mm", "steps_mm", _TRAINS, (0.5, 30.0)),
    ("plane.offsets_mm", "steps_mm", _TRAINS, (0.5, 30.0)),
    ("plane.angles_deg", "angles_deg", _TRAINS, (0.5, 30.0)),
    ("plane.reach_mm", "reach_mm", _TRAINS, (1.0, 150.0)),
    ("registration.translations_mm", "steps_mm", _TRAINS, (0.5, 30.0)),
    ("registration.rotations_deg", "angles_deg", _TRAINS, (0.5, 30.0)),
    ("registration.reach_mm", "reach_mm", _TRAINS, (1.0, 150.0)),
    ("centreline.step_mm", "steps_mm", _TRAINS, (0.5, 30.0)),
    ("centreline.turn_deg", "angles_deg", _TRAINS, (0.5, 30.0)),
    ("growing.steps_mm", "steps_mm", _TRAINS, (0.5, 30.0)),
    ("learner.searches", "searches", _TRAINS, (4, 256)),
    ("learner.episode_steps", "episode_steps", _TRAINS, (5, 200)),
    ("learner.batch", "batch", _TRAINS, (16, 1024)),
    ("learner.learning_rate", "learning_rate", _TRAINS, (1e-6, 1e-2)),
    ("learner.warmup", "warmup", _TRAINS, (100, 1_000_000)),
    ("learner.replay_capacity", "replay_capacity", _TRAINS, (1000, 1_000_000)),
    ("learner.rare_first", "rare_first", _TRAINS, (0.0, 0.5)),
    ("learner.priority_alpha", "priority_alpha", _TRAINS, (0.0, 0.7)),
    ("learner.gradient_clip", "gradient_clip", _TRAINS, (1e-3, 100.0)),
    ("pose.scale_fraction", "scale_fraction", _TRAINS, (0.0, 0.5)),
    ("pose.shift_mm", "shift_mm", _TRAINS, (0.0, 100.0)),
    ("evaluation.starts", "evaluation_starts", _TRAINS, (1, 20)),
    ("evaluation.poses", "evaluation_poses", _TRAINS, (1, 10)),
    ("evaluation.most_steps", "evaluation_steps", _TRAINS, (5, 400)),
    ("experience.rows", "experience_rows", _MODEL, (1, 32)),
    ("experience.columns", "experience_columns", _MODEL, (16, 200_000)),
    ("experience.position_bins", "position_bins", _TRAINS, (2, 32)),
    ("pixels.rows", "pixel_rows", _PIXELS, (3, 32)),
    ("pixels.columns", "pixel_columns", _PIXELS, (16, 500_000)),
    ("pixels.top", "pixel_top", _PIXELS, (1, 100_000)),
    ("rounds.training", "training_rounds", _MODEL, (1, 500)),
    ("rounds.quorum", "quorum", _ALL, (2, 1000)),
    ("rounds.deadline_s", "deadline_s", _ALL, (1.0, 86_400.0)),
    ("rounds.server_momentum", "server_momentum", _MODEL, (0.0, 0.9)),
    ("limits.update_l2", "update_l2", _MODEL, (0.0, 100.0)),
    ("limits.min_transitions", "min_transitions", _MODEL, (1, 1_000_000)),
    ("limits.max_cells_per_input", "max_cells_per_input", _MODEL, (0.01, 100.0)),
)
"""Field of a plan, its line below ``[bounds]``, of which kinds, and the usual range."""

USUAL: Final[Mapping[str, object]] = {
    "records.allowed": ("ModelUpdate", "SketchTable", "RoundReport"),
    "bytes.per_round": 67_108_864,
    "bytes.per_run": 4_294_967_296,
    "floors.images": 2,
    "floors.transitions": 100,
    "floors.sketch_fill": 0.01,
    "privacy.least_tier": 1,
    "plans.kinds": ("training", "no-op"),
    "plans.tasks": tuple(KINDS),
    "plans.landmarks": "any",
    "plans.fingerprints": "any",
    "pixels.slides": 1,
    "pixels.pixels": 10_000,
    "pixels.key_pixels": 50,
    "pixels.key_sites": 2,
    "pixels.group_pixels": 100,
    "bounds.episodes": 16,
    "bounds.updates": (10, 5000),
    "bounds.view_mm": (8.0, 400.0),
    **{f"bounds.{line}": usual for _, line, _, usual in _RANGES},
}
"""What the policy says that ``cairn-site join`` writes, by dotted name."""


@dataclass(frozen=True)
class _Rule:
    """One line of a policy, and how it bounds a plan.

    Attributes:
        policy: dotted name in ``policy.toml``.
        asked: what of the plan it bounds, as the plan's author calls it.
        way: ``least``, ``most`` and ``within`` bound numbers, ``among`` every one of some
            names; of a ``floor`` the stricter of plan and policy holds, and nothing is refused.
        kinds: of plans that it is about.
        value: what the plan asks.
    """

    policy: str
    asked: str
    way: Way
    kinds: Kinds
    value: Callable[[FederationPlan], object]


def _bytes_in_a_round(plan: FederationPlan) -> int:
    records = leavings(plan)
    return max(
        sum(each.array_bytes for each in records if phase in each.phases)
        for phase in schedule(plan)
    )


def _bytes_in_a_run(plan: FederationPlan) -> int:
    return sum(each.times * each.array_bytes for each in leavings(plan))


def _records(plan: FederationPlan) -> tuple[str, ...]:
    kinds = (kind.__name__ for phase in schedule(plan) for kind in answers_of(plan, phase))
    return tuple(dict.fromkeys(kinds))


def _views(plan: FederationPlan) -> tuple[float, ...]:
    """Width of the narrowest view in mm, by level."""
    return plan.space.views_mm


def _updates(plan: FederationPlan) -> tuple[int, ...]:
    """Count a round's updates, in the first and in the last."""
    return plan.updates_in(1), plan.updates_in(plan.rounds.training)


def _least_behind(name: str) -> Callable[[FederationPlan], object]:
    return lambda plan: getattr(getattr(plan, RUNS[plan.kind].must), name)


def _in_range(field: str, line: str, kinds: Kinds) -> _Rule:
    if field == "task.landmarks":
        return _Rule(
            f"bounds.{line}", "landmarks", "within", kinds, lambda p: len(p.task.landmarks)
        )
    return _Rule(f"bounds.{line}", field, "within", kinds, attrgetter(field))


def _field(policy: str, field: str, way: Way, kinds: Kinds) -> _Rule:
    return _Rule(policy, field, way, kinds, attrgetter(field))


RULES: Final[tuple[_Rule, ...]] = (
    _Rule("plans.kinds", "kind", "among", _ALL, lambda p: (p.kind,)),
    _Rule("records.allowed", "records", "among", _ALL, _records),
    _Rule("plans.tasks", "task.kind", "among", _MODEL, lambda p: (p.task.kind,)),
    _field("plans.landmarks", "task.landmarks", "among", _MODEL),
    _Rule("plans.fingerprints", "fingerprint", "among", _ALL, lambda p: (p.fingerprint,)),
    _field("privacy.least_tier", "limits.privacy_tier", "least", _ALL),
    _Rule("bytes.per_round", "bytes a round", "most", _ALL, _bytes_in_a_round),
    _Rule("bytes.per_run", "bytes a run", "most", _ALL, _bytes_in_a_run),
    *(_in_range(field, line, kinds) for field, line, kinds, _ in _RANGES),
    _Rule("bounds.updates", "updates a round", "within", _TRAINS, _updates),
    _Rule("bounds.episodes", "searches behind a gradient", "least", _TRAINS, draws_behind),
    _Rule("bounds.view_mm", "width of a view, mm", "within", _TRAINS, _views),
    _field("floors.images", "limits.min_images", "floor", _MODEL),
    _field("floors.transitions", "limits.min_transitions", "floor", _MODEL),
    _field("floors.sketch_fill", "limits.min_sketch_fill", "floor", _MODEL + _PIXELS),
    _Rule("pixels.slides", "min_slides", "floor", _SLIDES, _least_behind("min_slides")),
    _Rule("pixels.pixels", "min_pixels", "floor", _SLIDES, _least_behind("min_pixels")),
    _field("pixels.key_pixels", "pixels.key_pixels", "least", _PIXELS),
    _field("pixels.key_sites", "pixels.key_sites", "least", _PIXELS),
    _field("pixels.group_pixels", "embed.group_pixels", "least", _EMBEDS),
)


@dataclass(frozen=True)
class Bounded:
    """One field of a plan beside the line of a policy that bounds it.

    Attributes:
        asked: what of the plan.
        value: what the plan says, in words.
        policy: dotted name of the line in ``policy.toml``.
        bound: what it says, in words.
        holds: whether the plan keeps to it.
    """

    asked: str
    value: str
    policy: str
    bound: str
    holds: bool

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def held_against(
    plan: FederationPlan, policy: Mapping[str, object] | None = None
) -> tuple[Bounded, ...]:
    """Every line of a policy that is about a plan of this kind, beside what the plan asks.

    Args:
        plan: a valid one.
        policy: values by dotted name; a name that is absent bounds with nothing allowed.
            None takes the policy that ``cairn-site join`` writes.
    """
    says = USUAL if policy is None else policy
    return tuple(
        _held(rule, plan, says)
        for rule in RULES
        if plan.kind in rule.kinds and _speaks_of(plan, rule.asked)
    )


def _speaks_of(plan: FederationPlan, field: str) -> bool:
    """Say whether a plan has the section of a field; of others there is nothing to compare."""
    section = field.partition(".")[0]
    if not plan.trains or section not in AgentSettings.model_fields:
        return True
    return section in sections_of(plan.task.kind, AgentSettings.model_fields)


def _held(rule: _Rule, plan: FederationPlan, says: Mapping[str, object]) -> Bounded:
    value, bound = rule.value(plan), says.get(rule.policy)
    if bound is None:
        return Bounded(rule.asked, _shown(value), rule.policy, "not in the policy", holds=False)
    if rule.way == "among":
        choices = bound if isinstance(bound, tuple | list) else ()
        values = value if isinstance(value, tuple) else ()
        holds = bound == "any" or set(values) <= set(choices)
        words = "any" if bound == "any" else f"among {_shown(bound)}"
        return Bounded(rule.asked, _shown(value), rule.policy, words, holds)
    if rule.way == "within":
        least, most = bound if isinstance(bound, tuple | list) else (1, 0)
        numbers = value if isinstance(value, tuple) else (value,)
        holds = all(_number(least) <= _number(each) <= _number(most) for each in numbers)
        words = f"{_shown(least)} to {_shown(most)}"
        return Bounded(rule.asked, _shown(value), rule.policy, words, holds)
    number, limit = _number(value), _number(bound)
    words, holds = {
        "least": (f"at least {_shown(bound)}", number >= limit),
        "most": (f"at most {_shown(bound)}", number <= limit),
        "floor": (f"the stricter holds: {_shown(max(number, limit))}", True),
    }[rule.way]
    return Bounded(rule.asked, _shown(value), rule.policy, words, holds)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else float("nan")  # compares with nothing


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        names = [_short(each) if isinstance(each, str) else _shown(each) for each in value]
        if len(names) > 8:
            return f"{', '.join(names[:6])}, … ({len(names)} in all)"
        return ", ".join(names) or "nothing"
    return str(value)


def _short(name: str) -> str:
    """Return a fingerprint's beginning; any other name whole."""
    return f"{name[:12]}…" if len(name) == 64 else name
