"""The site's own bounds on every plan: ``policy.toml``.

The coordinator proposes a plan; the site's owner decides here how far any plan
may go. A plan beyond the policy is refused before training starts, and the
digest of the policy stands in every ledger record. Nothing here can be changed
by an order, and an unknown key is an error, never a default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError, RefusedError
from common.plan import FederationPlan, Frozen, Kind, LandmarkName, describe_validation
from common.schedule import Phase
from common.wire.pixel_rules import most_bytes
from common.wire.records import Digest, SiteName
from common.wire.rules import ANSWERS

RecordName = Literal[
    "ModelUpdate",
    "SketchTable",
    "RoundReport",
    "PixelStatistics",
    "PixelSketches",
    "HeavyHitters",
    "GroupCounts",
]
Bytes = Annotated[int, Field(ge=1, lt=2**53)]


class Records(Frozen):
    """``[records]``: what kinds of record may leave at all."""

    allowed: Annotated[tuple[RecordName, ...], Field(min_length=1, strict=False)]


class ByteCaps(Frozen):
    """``[bytes]``: envelope bytes that may leave, whatever the plan says."""

    per_round: Bytes
    per_run: Bytes

    @model_validator(mode="after")
    def _run_holds_a_round(self) -> Self:
        if self.per_run < self.per_round:
            raise ValueError("per_run must be at least per_round")
        return self


class Floors(Frozen):
    """``[floors]``: the least that must stand behind a release; the stricter of plan and site."""

    images: Annotated[int, Field(ge=1)]
    transitions: Annotated[int, Field(ge=1)]
    sketch_fill: Annotated[float, Field(ge=0, le=1)]


class Privacy(Frozen):
    """``[privacy]``: tier 0 lets anybody query a sketch, tier 1 only holders of the key."""

    least_tier: Annotated[int, Field(ge=0, le=1)]


class PixelBounds(Frozen):
    """``[pixels]``: bounds on plans about slides; without this section none is served.

    Attributes:
        slides, pixels: least that must stand behind a record; the stricter of plan and site.
        key_pixels, key_sites: a plan that lets rarer keys be named is refused, for other
            sites would name them.
        group_pixels: a plan that lets smaller groups be counted is refused.
    """

    slides: Annotated[int, Field(ge=1)]
    pixels: Annotated[int, Field(ge=1)]
    key_pixels: Annotated[int, Field(ge=2)]
    key_sites: Annotated[int, Field(ge=2)]
    group_pixels: Annotated[int, Field(ge=1)]


class KeySharing(Frozen):
    """``[keys]``: how the federation key may travel by way of the aggregator.

    Attributes:
        share: ``listed``: to and from sites that a person here has confirmed, and those in
            ``peers``; ``admitted``: to and from every site that the aggregator names as
            admitted; ``never``: a person carries it.
        peers: fingerprint of the ledger key of further sites, typed in by hand.
    """

    share: Literal["admitted", "listed", "never"]
    peers: Annotated[dict[SiteName, Digest], Field(max_length=256)] = {}  # noqa: RUF012

    @model_validator(mode="after")
    def _a_list_that_counts(self) -> Self:
        if self.peers and self.share != "listed":
            raise ValueError('peers count only with share = "listed"')
        return self

    def allows(self, site: str, fingerprint: str, confirmed: Mapping[str, str]) -> bool:
        """Whether the key may go to, or come from, the site with this ledger key.

        Args:
            site: its name.
            fingerprint: of the ledger key that it shows.
            confirmed: fingerprint by name, as people of this site confirmed them. Where the
                policy names another key than they did, nobody is that site.
        """
        match self.share:
            case "admitted":
                return True
            case "listed":
                named = {known[site] for known in (self.peers, confirmed) if site in known}
                return named == {fingerprint}
            case "never":
                return False


class Peers(Frozen):
    """``[peers]``: beside whom this site takes part.

    Attributes:
        least_known: of the other sites of a run, how many must be confirmed by a person
            of this site. 0 takes the aggregator's word for who takes part.
        least_in_sum: how many confirmed others must stand behind every sum.
    """

    least_known: Annotated[int, Field(ge=0, le=1000)] = 2
    least_in_sum: Annotated[int, Field(ge=0, le=1000)] = 1


class Plans(Frozen):
    """``[plans]``: which plans may be served; ``any`` must be said, an empty list allows none.

    Attributes:
        approval: ``each``: a person approves every plan; ``bounded``: plans within the
            bounds of this file are served without one.
    """

    kinds: Annotated[tuple[Kind, ...], Field(strict=False)]
    tasks: Annotated[tuple[Literal["landmark-3d"], ...], Field(strict=False)]
    landmarks: Literal["any"] | Annotated[tuple[LandmarkName, ...], Field(strict=False)]
    fingerprints: Literal["any"] | Annotated[tuple[Digest, ...], Field(strict=False)]
    approval: Literal["each", "bounded"] = "each"


class Policy(Frozen):
    """One site's ``policy.toml``; every section but ``[pixels]`` and ``[keys]`` must be present."""

    version: Literal[1]
    records: Records
    bytes: ByteCaps
    floors: Floors
    privacy: Privacy
    plans: Plans
    pixels: PixelBounds | None = None
    keys: KeySharing | None = None
    peers: Peers = Peers()

    @property
    def sharing(self) -> KeySharing:
        """``[keys]``; a policy that does not speak of it shares nothing."""
        return self.keys or KeySharing(share="never")

    @cached_property
    def sha256(self) -> str:
        """Digest of the canonical form: spelling and comments of the file do not matter."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude_none=True)))


def read_policy(path: Path) -> Policy:
    """Read and validate ``policy.toml``.

    Raises:
        InputDataError: missing, not TOML, or an unknown, absent or wrong field.
    """
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the site's policy is not valid",
            field=field,
            expected=expected,
            got=got,
            advice=f"Correct {path.name}; nothing is released until then",
        ) from error
    except (OSError, ValueError) as error:
        raise InputDataError(
            "cannot read the site's policy",
            field=str(path),
            got=type(error).__name__,
            advice="Restore it, or take the default that `cairn-site join` writes",
        ) from error


def check_phase(policy: Policy, phase: Phase) -> None:
    """Refuse an order whose answer needs a record that may not leave, before it is worked on.

    Raises:
        RefusedError: names the first record type that is not allowed.
    """
    for kind in ANSWERS[phase]:
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
    plans = policy.plans
    _require(plan.kind in plans.kinds, "kind", " or ".join(plans.kinds) or "nothing", plan.kind)
    if plan.kind in ("pixels", "embed"):
        _check_slides(policy, plan)
    else:
        _check_task(policy, plan)
    if plans.fingerprints != "any":
        _require(
            plan.fingerprint in plans.fingerprints,
            "fingerprint",
            f"one of the {len(plans.fingerprints)} in plans.fingerprints",
            f"{plan.fingerprint[:12]}…",
        )
    _require(
        plan.limits.privacy_tier >= policy.privacy.least_tier,
        "limits.privacy_tier",
        f"at least {policy.privacy.least_tier}",
        str(plan.limits.privacy_tier),
    )
    _check_bytes(policy, plan, weights_bytes)


def _check_task(policy: Policy, plan: FederationPlan) -> None:
    plans = policy.plans
    _require(
        plan.task.kind in plans.tasks,
        "task.kind",
        " or ".join(plans.tasks) or "nothing",
        plan.task.kind,
    )
    if plans.landmarks != "any":
        strangers = [name for name in plan.task.landmarks if name not in plans.landmarks]
        _require(
            not strangers,
            "task.landmarks",
            f"among the {len(plans.landmarks)} of plans.landmarks",
            f"{len(strangers)} others",
        )


def _check_slides(policy: Policy, plan: FederationPlan) -> None:
    """Here a lower floor is a reason to refuse: what is rare would be told all the same."""
    bounds = policy.pixels
    if bounds is None:
        _require(holds=False, field="kind", expected="none about slides", got=plan.kind)
        return
    told = {"pixels": ("key_pixels", "key_sites"), "embed": ("group_pixels",)}[plan.kind]
    for name in told:
        asked, least = getattr(getattr(plan, plan.kind), name), getattr(bounds, name)
        _require(asked >= least, f"{plan.kind}.{name}", f"at least {least}", str(asked))


def _check_bytes(policy: Policy, plan: FederationPlan, weights_bytes: int) -> None:
    """What a round and a run are bound to send must fit the caps, headers not counted."""
    if plan.kind in ("pixels", "embed"):
        largest = most_bytes(plan.pixels) if plan.kind == "pixels" else 0
        whole, what, how_often = largest, "pixels", "pixels"
    else:
        largest = weights_bytes + 8 * plan.experience.rows * plan.experience.columns
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


def default_policy_text() -> str:
    """The commented file that ``cairn-site join`` writes."""
    return _DEFAULT


_DEFAULT = """\
# What this site allows, whatever a coordinator asks. Yours to edit.
# Every key must be present and unknown keys are refused. The worker reads this
# file for every order; its digest stands in every record of the ledger.
version = 1

[records]
# The closed set of what may leave. Take one out and it never leaves.
#   ModelUpdate  difference of the network's weights after a round
#   SketchTable  count sketch of experience tuples, keyed
#   RoundReport  counts, error figures per landmark, or the number of a failure
# For plans about slides, add:
#   PixelStatistics  sums over pixels: brightness, how bands go together, ranges
#   PixelSketches    count sketches of quantised pixels, keyed
#   HeavyHitters     frequent quantised pixels of the whole federation, and their counts
#   GroupCounts      pixels per group of a codebook
allowed = ["ModelUpdate", "SketchTable", "RoundReport"]

[bytes]
# Envelope bytes that may leave in one round, and in a whole run.
per_round = 67_108_864
per_run = 4_294_967_296

[floors]
# Nothing leaves that rests on less than this. A plan may ask for more, never for less.
images = 2
transitions = 100
sketch_fill = 0.01

[privacy]
# 1: the aggregator cannot query a sketch without the federation key. 0: anybody can.
least_tier = 1

[keys]
# The federation key, with which sketches are hashed, comes from another site, sealed
# to this one; the aggregator carries it and cannot open it. This site seals it to:
#   listed    sites that your staff have confirmed by telephone (`cairn-site peers`),
#             and those typed in here with their ledger key's fingerprint; and takes it
#             from no other: peers = {site-b = "64 hexadecimal digits"}
#   admitted  every site that the aggregator names as admitted. An aggregator that
#             lies could invent a site, and have the key sealed to that: it could then
#             forge sums, and read images.
#   never     nobody, and takes it from nobody: a person carries worker/federation.key.
share = "listed"

[pixels]
# Bounds on plans about slides ("pixels" and "embed"; allow them below). Without
# this section none is served.
# Nothing leaves that rests on fewer slides or pixels than this.
slides = 1
pixels = 10_000
# A quantised pixel may be named when the whole federation has so many of it, at so
# many sites. A plan that asks for less is refused.
key_pixels = 50
key_sites = 2
# A group of a codebook with fewer pixels than this may not be counted.
group_pixels = 100

[plans]
# Which kinds of plan are served.
#   training  trains the agent; no-op opens no image and measures the cost of a round
#   pixels    sums and counts the pixels of multi-band slides; embed maps slides with
#             a codebook. Not served unless you add them, and their records above:
#             they describe the tissue in your slides, and every other site that has
#             the federation key can query the sum of the sketches.
kinds = ["training", "no-op"]
tasks = ["landmark-3d"]
# "any", or a list of names: landmarks = ["AC", "PC"]
landmarks = "any"
# "any", or the fingerprints of the only plans you approve.
fingerprints = "any"
"""
