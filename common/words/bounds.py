"""A plan beside the bounds of a ``policy.toml``: which field is held to which number.

For a table that a person reads. What refuses a plan is the site's own check, which
reads the same fields; ``tests/site_client/test_plan_bounds.py`` holds the two together,
and ``USUAL`` to the policy that ``cairn-site join`` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from common.plan import FederationPlan
from common.schedule import schedule
from common.wire.rules import ANSWERS
from common.words.leaving import leavings

Way = Literal["least", "most", "among", "floor"]
_TRAINS = ("training", "no-op")
_ALL = ("training", "no-op", "pixels", "embed")

USUAL: Final[Mapping[str, object]] = {
    "records.allowed": ("ModelUpdate", "SketchTable", "RoundReport"),
    "bytes.per_round": 67_108_864,
    "bytes.per_run": 4_294_967_296,
    "floors.images": 2,
    "floors.transitions": 100,
    "floors.sketch_fill": 0.01,
    "privacy.least_tier": 1,
    "plans.kinds": ("training", "no-op"),
    "plans.tasks": ("landmark-3d",),
    "plans.landmarks": "any",
    "plans.fingerprints": "any",
    "pixels.slides": 1,
    "pixels.pixels": 10_000,
    "pixels.key_pixels": 50,
    "pixels.key_sites": 2,
    "pixels.group_pixels": 100,
}
"""What the policy says that ``cairn-site join`` writes, by dotted name."""


@dataclass(frozen=True)
class _Rule:
    """How one line of a policy bounds a plan.

    Attributes:
        policy: dotted name in ``policy.toml``.
        asked: what of the plan it bounds, as the plan's author calls it.
        way: ``least`` and ``most`` bound a number, ``among`` every one of some names; of a
            ``floor`` the stricter of plan and policy holds, and nothing is refused.
        kinds: of plans that it is about.
        value: what the plan asks.
    """

    policy: str
    asked: str
    way: Way
    kinds: tuple[str, ...]
    value: Callable[[FederationPlan], object]


def _bytes_in_a_round(plan: FederationPlan) -> int:
    found = leavings(plan)
    return max(
        sum(each.array_bytes for each in found if phase in each.phases) for phase in schedule(plan)
    )


def _bytes_in_a_run(plan: FederationPlan) -> int:
    return sum(each.times * each.array_bytes for each in leavings(plan))


def _records(plan: FederationPlan) -> tuple[str, ...]:
    kinds = (kind.__name__ for phase in schedule(plan) for kind in ANSWERS[phase])
    return tuple(dict.fromkeys(kinds))


RULES: Final[tuple[_Rule, ...]] = (
    _Rule("plans.kinds", "kind", "among", _ALL, lambda p: (p.kind,)),
    _Rule("records.allowed", "records", "among", _ALL, _records),
    _Rule("plans.tasks", "task.kind", "among", _TRAINS, lambda p: (p.task.kind,)),
    _Rule("plans.landmarks", "task.landmarks", "among", _TRAINS, lambda p: p.task.landmarks),
    _Rule("plans.fingerprints", "fingerprint", "among", _ALL, lambda p: (p.fingerprint,)),
    _Rule(
        "privacy.least_tier",
        "limits.privacy_tier",
        "least",
        _ALL,
        lambda p: p.limits.privacy_tier,
    ),
    _Rule("bytes.per_round", "bytes a round", "most", _ALL, _bytes_in_a_round),
    _Rule("bytes.per_run", "bytes a run", "most", _ALL, _bytes_in_a_run),
    _Rule("floors.images", "limits.min_images", "floor", _TRAINS, lambda p: p.limits.min_images),
    _Rule(
        "floors.transitions",
        "limits.min_transitions",
        "floor",
        _TRAINS,
        lambda p: p.limits.min_transitions,
    ),
    _Rule(
        "floors.sketch_fill",
        "limits.min_sketch_fill",
        "floor",
        (*_TRAINS, "pixels"),
        lambda p: p.limits.min_sketch_fill,
    ),
    _Rule(
        "pixels.slides",
        "min_slides",
        "floor",
        ("pixels", "embed"),
        lambda p: (p.pixels if p.kind == "pixels" else p.embed).min_slides,
    ),
    _Rule(
        "pixels.pixels",
        "min_pixels",
        "floor",
        ("pixels", "embed"),
        lambda p: (p.pixels if p.kind == "pixels" else p.embed).min_pixels,
    ),
    _Rule(
        "pixels.key_pixels",
        "pixels.key_pixels",
        "least",
        ("pixels",),
        lambda p: p.pixels.key_pixels,
    ),
    _Rule(
        "pixels.key_sites", "pixels.key_sites", "least", ("pixels",), lambda p: p.pixels.key_sites
    ),
    _Rule(
        "pixels.group_pixels",
        "embed.group_pixels",
        "least",
        ("embed",),
        lambda p: p.embed.group_pixels,
    ),
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
    return tuple(_held(rule, plan, says) for rule in RULES if plan.kind in rule.kinds)


def _held(rule: _Rule, plan: FederationPlan, says: Mapping[str, object]) -> Bounded:
    value, bound = rule.value(plan), says.get(rule.policy)
    if bound is None:
        return Bounded(rule.asked, _shown(value), rule.policy, "not in the policy", holds=False)
    if rule.way == "among":
        known = bound if isinstance(bound, tuple | list) else ()
        asked = value if isinstance(value, tuple) else ()
        holds = bound == "any" or set(asked) <= set(known)
        words = "any" if bound == "any" else f"among {_shown(bound)}"
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
        names = [_short(str(each)) for each in value]
        if len(names) > 8:
            return f"{', '.join(names[:6])}, … ({len(names)} in all)"
        return ", ".join(names) or "nothing"
    return str(value)


def _short(name: str) -> str:
    """A fingerprint's beginning; any other name whole."""
    return f"{name[:12]}…" if len(name) == 64 else name
