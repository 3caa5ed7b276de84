"""Bounds of a plan's fields by fields of the policy, and the refusal.

``BOUNDED`` and ``HARMLESS`` together hold every field of a plan, each once; a test walks
the plan's schema, so that a field added to it cannot slip past. ``TOGETHER`` holds the
rules about several fields at once. An order's own words are in ``ORDER_FIELDS``, with the
place where each is verified. Pure: nothing here opens a file or knows an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

from common.errors import RefusedError
from common.plan import FederationPlan, Kind
from common.policy.sections import Policy
from common.schedule import Phase
from common.settings import KINDS
from common.wire.bounds import draws_behind
from common.wire.pixel_rules import most_bytes
from common.wire.rules import answers_of

_TRAINS: Final[frozenset[Kind]] = frozenset({"training"})
_HAS_A_MODEL: Final[frozenset[Kind]] = frozenset({"training", "no-op"})
_PIXELS: Final[frozenset[Kind]] = frozenset({"pixels"})
_EMBEDS: Final[frozenset[Kind]] = frozenset({"embed"})
_ALL: Final = _HAS_A_MODEL | _PIXELS | _EMBEDS


class Ruling(NamedTuple):
    """A rule's verdict on a plan: kept or not, what the rule allows, what the plan asks for."""

    holds: bool
    expected: str
    got: str


Judge = Callable[[Policy, FederationPlan], Ruling]


@dataclass(frozen=True)
class Rule:
    """One bound.

    Attributes:
        by: the field of the policy, for people.
        kinds: of plans that it is asked of.
        judge: whether a plan keeps to it.
    """

    by: str
    kinds: frozenset[Kind]
    judge: Judge


def _say(number: float | None) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _within(path: str, name: str, kinds: frozenset[Kind] = _TRAINS, *, count: bool = False) -> Rule:
    """Return a field, or each of its values, or their number, within ``bounds.<name>``."""

    def judge(policy: Policy, plan: FederationPlan) -> Ruling:
        least, most = getattr(policy.bounds, name)
        planned = attrgetter(path)(plan)
        values = planned if isinstance(planned, tuple) else (planned,)
        values = (len(values),) if count else values
        beyond = next((value for value in values if not least <= value <= most), None)
        expected = f"{_say(least)} to {_say(most)}" + (" of them" if count else "")
        return Ruling(beyond is None, expected, _say(beyond))

    return Rule(f"bounds.{name}", kinds, judge)


def _at_least(path: str, by: str, kinds: frozenset[Kind]) -> Rule:
    """Return a field that may not be below the policy's."""

    def judge(policy: Policy, plan: FederationPlan) -> Ruling:
        # What is not there serves no such plan, which ``kind`` says.
        section = getattr(policy, by.partition(".")[0])
        least, value = attrgetter(by)(policy) if section else 0, attrgetter(path)(plan)
        return Ruling(value >= least, f"at least {least}", str(value))

    return Rule(by, kinds, judge)


def _kind(policy: Policy, plan: FederationPlan) -> Ruling:
    served = policy.plans.kinds
    if plan.kind in served and plan.about_slides and policy.pixels is None:
        return Ruling(holds=False, expected="none about slides", got=plan.kind)
    return Ruling(plan.kind in served, " or ".join(served) or "nothing", plan.kind)


def _task(policy: Policy, plan: FederationPlan) -> Ruling:
    tasks = policy.plans.tasks
    return Ruling(plan.task.kind in tasks, " or ".join(tasks) or "nothing", plan.task.kind)


def _among_names(policy: Policy, planned: tuple[str, ...]) -> Ruling:
    allowed = policy.plans.landmarks
    strangers = [] if allowed == "any" else [name for name in planned if name not in allowed]
    expected = f"among the {len(allowed)} of plans.landmarks"
    return Ruling(not strangers, expected, f"{len(strangers)} others")


def _landmarks(policy: Policy, plan: FederationPlan) -> Ruling:
    named = _among_names(policy, plan.task.landmarks)
    if not named.holds or KINDS[plan.task.kind].named != "landmarks":
        return named
    return _within("task.landmarks", "landmarks", count=True).judge(policy, plan)


def _plane_landmarks(policy: Policy, plan: FederationPlan) -> Ruling:
    return _among_names(policy, plan.task.plane_landmarks)


def _more_planes(policy: Policy, plan: FederationPlan) -> Ruling:
    """Return a rule about the landmarks of all further planes, each of which is a head."""
    planes = plan.task.more_planes
    return _among_names(policy, tuple(name for plane in planes for name in plane))


def _updates(policy: Policy, plan: FederationPlan) -> Ruling:
    """Return the updates of a round; the plan counts those of all."""
    least, most = policy.bounds.updates
    shares = {plan.updates_in(round_) for round_ in (1, plan.rounds.training)}
    beyond = next((share for share in shares if not least <= share <= most), None)
    return Ruling(beyond is None, f"{least} to {most} in every round", _say(beyond))


BOUNDED: Final[Mapping[str, Rule]] = {
    "kind": Rule("plans.kinds", _ALL, _kind),
    "task.kind": Rule("plans.tasks", _HAS_A_MODEL, _task),
    "task.landmarks": Rule("plans.landmarks, bounds.landmarks", _HAS_A_MODEL, _landmarks),
    "task.plane_landmarks": Rule("plans.landmarks", _HAS_A_MODEL, _plane_landmarks),
    "task.more_planes": Rule("plans.landmarks", _HAS_A_MODEL, _more_planes),
    "task.spacing_mm": _within("task.spacing_mm", "spacing_mm"),
    "task.roi": _within("task.roi", "roi", _HAS_A_MODEL),
    "network.width": _within("network.width", "width", _HAS_A_MODEL),
    "network.hidden": _within("network.hidden", "hidden", _HAS_A_MODEL),
    "ladder.scales": _within("ladder.scales", "scales"),
    "ladder.steps_mm": _within("ladder.steps_mm", "steps_mm"),
    "plane.offsets_mm": _within("plane.offsets_mm", "steps_mm"),
    "plane.angles_deg": _within("plane.angles_deg", "angles_deg"),
    "plane.reach_mm": _within("plane.reach_mm", "reach_mm"),
    "registration.translations_mm": _within("registration.translations_mm", "steps_mm"),
    "registration.rotations_deg": _within("registration.rotations_deg", "angles_deg"),
    "registration.reach_mm": _within("registration.reach_mm", "reach_mm"),
    "centreline.step_mm": _within("centreline.step_mm", "steps_mm"),
    "centreline.turn_deg": _within("centreline.turn_deg", "angles_deg"),
    "growing.steps_mm": _within("growing.steps_mm", "steps_mm"),
    "learner.searches": _within("learner.searches", "searches"),
    "learner.episode_steps": _within("learner.episode_steps", "episode_steps"),
    "learner.updates": Rule("bounds.updates", _TRAINS, _updates),
    "learner.batch": _within("learner.batch", "batch"),
    "learner.learning_rate": _within("learner.learning_rate", "learning_rate"),
    "learner.warmup": _within("learner.warmup", "warmup"),
    "learner.replay_capacity": _within("learner.replay_capacity", "replay_capacity"),
    "learner.rare_first": _within("learner.rare_first", "rare_first"),
    "learner.priority_alpha": _within("learner.priority_alpha", "priority_alpha"),
    "learner.gradient_clip": _within("learner.gradient_clip", "gradient_clip"),
    "pose.scale_fraction": _within("pose.scale_fraction", "scale_fraction"),
    "pose.shift_mm": _within("pose.shift_mm", "shift_mm"),
    "evaluation.starts": _within("evaluation.starts", "evaluation_starts"),
    "evaluation.poses": _within("evaluation.poses", "evaluation_poses"),
    "evaluation.most_steps": _within("evaluation.most_steps", "evaluation_steps"),
    "experience.rows": _within("experience.rows", "experience_rows", _HAS_A_MODEL),
    "experience.columns": _within("experience.columns", "experience_columns", _HAS_A_MODEL),
    "experience.position_bins": _within("experience.position_bins", "position_bins"),
    "pixels.rows": _within("pixels.rows", "pixel_rows", _PIXELS),
    "pixels.columns": _within("pixels.columns", "pixel_columns", _PIXELS),
    "pixels.top": _within("pixels.top", "pixel_top", _PIXELS),
    # Here a lower floor is a reason to refuse: what is rare would be told all the same.
    "pixels.key_pixels": _at_least("pixels.key_pixels", "pixels.key_pixels", _PIXELS),
    "pixels.key_sites": _at_least("pixels.key_sites", "pixels.key_sites", _PIXELS),
    "embed.group_pixels": _at_least("embed.group_pixels", "pixels.group_pixels", _EMBEDS),
    "rounds.training": _within("rounds.training", "training_rounds", _HAS_A_MODEL),
    "rounds.quorum": _within("rounds.quorum", "quorum", _ALL),
    "rounds.deadline_s": _within("rounds.deadline_s", "deadline_s", _ALL),
    "rounds.server_momentum": _within("rounds.server_momentum", "server_momentum", _HAS_A_MODEL),
    "limits.privacy_tier": _at_least("limits.privacy_tier", "privacy.least_tier", _ALL),
    "limits.update_l2": _within("limits.update_l2", "update_l2", _HAS_A_MODEL),
    "limits.min_transitions": _within("limits.min_transitions", "min_transitions", _HAS_A_MODEL),
    "limits.max_cells_per_input": _within(
        "limits.max_cells_per_input", "max_cells_per_input", _HAS_A_MODEL
    ),
}
"""Field of a plan to the rule that bounds it; in the order in which they are asked."""


def _enough_searches(policy: Policy, plan: FederationPlan) -> Ruling:
    """Enough different draws, so that no gradient is of one image."""
    least, searches = policy.bounds.episodes, draws_behind(plan)
    return Ruling(
        searches >= least,
        f"short enough that at least {least} searches stand behind the first gradient",
        f"{searches}",
    )


def _view(policy: Policy, plan: FederationPlan) -> Ruling:
    least, most = policy.bounds.view_mm
    beyond = next((view for view in plan.space.views_mm if not least <= view <= most), None)
    expected = f"such that a cut is {least:g} to {most:g} mm wide"
    return Ruling(beyond is None, expected, f"{beyond or 0:g} mm")


TOGETHER: Final[tuple[tuple[str, Rule], ...]] = (
    ("learner.episode_steps", Rule("bounds.episodes", _TRAINS, _enough_searches)),
    ("task.roi", Rule("bounds.view_mm", _TRAINS, _view)),
)
"""Rules about several fields; named after the one to change first."""

_STRICTER: Final = "the door applies the stricter of it and [floors]"
_STRICTER_SLIDES: Final = "the door applies the stricter of it and [pixels]"
_SHAPES_KEYS: Final = (
    "shapes keys and tables, whose bytes [bytes] bounds; no key is named below pixels.key_pixels"
)
HARMLESS: Final[Mapping[str, str]] = {
    "version": "one value only",
    "name": "a name, shown to the person who approves",
    "seed": "draws first weights and poses; what a lucky seed could gather, bounds.episodes bounds",
    "start": "must be a model that this site computed, or one of plans.start_models: the worker "
    "looks there before it opens an image",
    "task.channels": "must be what the images have",
    "task.zooms": "bounds.view_mm holds for the narrowest",
    "task.frames": "earlier places of the same search; at most 8",
    "task.agents_per_landmark": "at most 16; they share the image, and [bytes] bounds the network",
    "task.team": "at most 32, each one of task.landmarks; they share the image, and [bytes] bounds "
    "the network",
    "task.interchangeable": "couples of the landmarks, which plans.landmarks names",
    "task.missing": "the floors of images hold for every label; beside the update stands which "
    "labels the site trained, as its report says already",
    "task.crops": "at most 8 cropped copies of an image beside it; [floors] count images as before",
    "task.shown": "a closed list; structure shows less of an image than its greys do",
    "task.contrasts": "at most 16 copies of an image beside it in other greys; [floors] count "
    "images as before",
    "task.recontrast": "shows the moving image through one fixed curve",
    "task.world": "how cubes are laid out; the same voxels",
    "network.architecture": "a closed list, whose size [bytes] bounds",
    "network.dueling": "one value more per branch",
    "network.private_heads": "less leaves the site",
    "network.attention": "a few weights among the agents",
    "box.steps": "shares of the box's size, at most a logarithm of 1 each",
    "box.contexts": "bounds.view_mm holds for the widest around the smallest box",
    "box.overlap": "what reward stopping earns",
    "box.smallest_mm": "bounds.view_mm holds for the views around it",
    "box.least_voxels": "which components of a label image count as boxes",
    "box.per_axis": "of searches of whole images, which no round does",
    "box.sizes_mm": "of searches of whole images, which no round does",
    "box.suppress_above": "of searches of whole images, which no round does",
    "box.least_score": "of searches of whole images, which no round does",
    "plane.normal": "where the search begins",
    "plane.more_normals": "where the searches for task.more_planes begin",
    "plane.strides_mm": "bounds.view_mm holds for the cuts",
    "plane.slab": "distance of three parallel cuts, each of which shows the image",
    "plane.reach_deg": "at most 80 degrees",
    "plane.lever_mm": "weighs angles against distances in rewards, which lie within -1 to 1",
    "registration.strides_mm": "bounds.view_mm holds for the views",
    "registration.motion_mm": "within registration.reach_mm",
    "registration.motion_deg": "within registration.reach_deg",
    "registration.reach_deg": "at most 80 degrees",
    "registration.lever_mm": "weighs angles against distances, in rewards within -1 to 1",
    "registration.contrasts": "at most 255 random curves, each of the whole range of greys",
    "registration.start": "of searches whose truth nobody knows, which no round does",
    "glimpse.scales": "bounds.view_mm holds for the views",
    "glimpse.within": "what reward a declaration earns",
    "glimpse.cost": "at most half of what a declaration earns",
    "glimpse.reward": "one of two rewards, both within -1 to 1",
    "growing.strides_mm": "bounds.view_mm holds for the narrowest of the views seen at once",
    "growing.contexts": "bounds.view_mm holds for the narrowest",
    "growing.tolerance": "which pixels join a region; rewards stay within -1 to 1",
    "growing.smooth_mm": "which pixels join a region; at most 50 mm",
    "growing.reward": "one of two rewards, both within -1 to 1",
    "centreline.strides_mm": "bounds.view_mm holds for the narrowest of the views seen at once",
    "centreline.tolerance_mm": "what reward stopping earns",
    "centreline.longest": "at most 128 points, which stay with the search",
    "learner.method": "a closed list; displacements tell as much of an image as values do, and no "
    "experience leaves with them",
    "learner.gamma": "weighs later rewards; rewards are distances, and lie within -1 to 1",
    "learner.double": "which network chooses the action that is valued",
    "learner.loss": "squared or Huber; gradients are clipped to bounds.gradient_clip",
    "learner.entropy": "at most 1; how evenly a policy chooses between the two ways along an axis",
    "learner.warm_start": "whether rewards or returns are regressed; both are of distances",
    "learner.path_supervision_only": "as learner.warm_start, for all updates",
    "learner.target": "which way the target network follows the other",
    "learner.target_decay": "how fast the target network follows the other",
    "learner.target_period": "how often the target network copies the other",
    "learner.replay": "a closed list; bounds.rare_first and bounds.priority_alpha hold for those "
    "that draw unevenly",
    "learner.importance": "lessens the weight of what is drawn often, and adds to none",
    "learner.priority_beta": "lessens the weight of what priority draws often, and adds to none",
    "learner.learning_rate_end": "falls from what bounds.learning_rate holds",
    "learner.learning_rate_schedule": "falls from what bounds.learning_rate holds",
    "learner.learning_rate_steps": "falls from what bounds.learning_rate holds",
    "learner.epsilon_start": "random actions are searches like others",
    "learner.epsilon_end": "a search that explores nothing stays a search; bounds.episodes says of "
    "how many a batch is",
    "learner.epsilon_over": "when exploration ends",
    "pose.rotation_deg": "turns the image; turned back, it is the same",
    "pose.gamma_contrast": "an exponent between 1/2 and 2",
    "evaluation.native": "counts for evaluations on their own, not for a round's",
    "evaluation.visits": "when a search ends",
    "evaluation.active_termination": "when a search ends",
    "evaluation.warm_start": "where a search begins, from what the site itself knows",
    "evaluation.outlier_mads": "which starts count for their consensus",
    "experience.key": "a closed list: offsets from what is looked for, or places in the image",
    "experience.reach_steps": "at most 32 steps of the ladder, whose lengths bounds.steps_mm holds",
    "experience.kept": "the sum of all sites' tables stays with the model, at the sites",
    "pixels.bands": "at most 256 names, which the slides must have",
    "pixels.codec": _SHAPES_KEYS,
    "pixels.components": _SHAPES_KEYS,
    "pixels.bins": _SHAPES_KEYS,
    "pixels.tail": _SHAPES_KEYS,
    "pixels.levels": _SHAPES_KEYS,
    "pixels.smoothing": "mixes each pixel with its neighbours before it becomes a key, 5 pixels at "
    "most; what leaves is of as many bytes and from as many pixels",
    "pixels.value_scale": _SHAPES_KEYS,
    "pixels.floor": "sums of fewer pixels than pixels.pixels do not leave; the difference of two "
    "runs with two floors is of fewer, which is why a person approves and [budget] counts runs",
    "pixels.presence_floor": "pixels.key_pixels and pixels.key_sites hold whatever it is",
    "pixels.min_slides": _STRICTER_SLIDES,
    "pixels.min_pixels": _STRICTER_SLIDES,
    "embed.codec": "the worker holds the codec that came to this digest",
    "embed.codebook": "the worker holds the codebook that came to this digest; maps stay here",
    "embed.groups": "at most 255 names; a group is counted from pixels.group_pixels pixels on",
    "embed.min_slides": _STRICTER_SLIDES,
    "embed.min_pixels": _STRICTER_SLIDES,
    "rounds.train_s": "ends a round early; never before bounds.updates' least and the floors",
    "rounds.late_weight": "adds, once, a share of what this site's door has let out before",
    "limits.max_envelope_bytes": "the door holds every envelope to bytes.per_round as well",
    "limits.min_images": _STRICTER,
    "limits.min_sketch_fill": _STRICTER,
}
"""Field of a plan to the reason why nothing bounds it here."""

ORDER_FIELDS: Final[Mapping[str, str]] = {
    "v": "one value only",
    "message": "one value only",
    "run": "a name; the history knows its plan and its last round, and [budget] counts runs",
    "round": "the plan's schedule says which phase it has; the history refuses to go back",
    "phase": "the plan's schedule, and [records]: an answer needs records that may leave",
    "plan": "every field of it stands in BOUNDED or HARMLESS, and a person approves it",
    "deadline_s": "how long the aggregator waits; 1 to 86400, and no work is done for it",
    "roster.site": "the worker: this site among them, and peers.least_known confirmed others",
    "roster.ledger_key": "the worker: the key that a person here has confirmed for that site",
    "roster.samples": "the worker: its own is what it declared; capped where sums are verified",
    "sum": "the worker: digest of the sum beside the order, whose tag it verifies itself",
    "codec": "the worker: the plan's form of codec, or the digest that the plan names",
}
"""Field of an order to the place where it is verified, before any work on it."""


def check_phase(policy: Policy, plan: FederationPlan, phase: Phase) -> None:
    """Refuse an order whose answer needs a record that may not leave, before it is worked on.

    Raises:
        RefusedError: names the first record type that is not allowed.
    """
    for kind in answers_of(plan, phase):
        name = kind.__name__
        _require(
            name in policy.records.allowed,
            f"an order of phase {phase}",
            "answerable by " + ", ".join(policy.records.allowed),
            f"a need for {name}",
        )


def check_plan(policy: Policy, plan: FederationPlan, *, weights_bytes: int = 0) -> None:
    """Refuse a plan that goes beyond the policy, before any image is opened.

    Lower floors than the site's are no reason to refuse: the gate applies the
    stricter of the two.

    Args:
        policy: the site's.
        plan: the one an order asks for.
        weights_bytes: size of the model's weights, as far as it is known by now.

    Raises:
        RefusedError: names the field of the plan.
    """
    for field, rule in (*BOUNDED.items(), *TOGETHER):
        if plan.kind in rule.kinds:
            judged = rule.judge(policy, plan)
            _require(judged.holds, field, f"{judged.expected} ({rule.by})", judged.got)
    named = policy.plans.fingerprints
    if named != "any":
        _require(
            plan.fingerprint in named,
            "fingerprint",
            f"one of the {len(named)} in plans.fingerprints",
            f"{plan.fingerprint[:12]}…",
        )
    _check_bytes(policy, plan, weights_bytes)


def _check_bytes(policy: Policy, plan: FederationPlan, weights_bytes: int) -> None:
    """Check that what a round and a run are bound to send fits the caps, headers not counted."""
    if plan.about_slides:
        largest = most_bytes(plan.pixels) if plan.kind == "pixels" else 0
        whole, what, how_often = largest, "pixels", "pixels"
    else:
        largest = weights_bytes + plan.table_bytes
        whole, what, how_often = (
            largest * plan.rounds.training,
            "experience and model",
            "rounds.training",
        )
    caps = policy.bytes
    _require(
        largest <= caps.per_round,
        what,
        f"at most {caps.per_round} bytes per round",
        f"{largest} bytes",
    )
    _require(
        whole <= caps.per_run, how_often, f"at most {caps.per_run} bytes per run", f"{whole} bytes"
    )


def _require(holds: bool, field: str, expected: str, got: str) -> None:
    if not holds:
        raise RefusedError(
            "the site's policy does not allow this plan",
            field=field,
            expected=expected,
            got=got,
            advice="The site's owner decides in policy.toml",
        )
