"""The federation plan: what is trained, how, for how long, and what may be asked of a site.

A plan is data, never code. It is written as TOML, read once, frozen, and known
everywhere by its fingerprint: the SHA-256 of its canonical JSON. Unknown keys
are refused, so that a misspelt limit is an error and not a default.
"""

from __future__ import annotations

import math
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.keys.prefixes import band_ladder, component_ladder

Kind = Literal["training", "no-op", "pixels", "embed"]
LandmarkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}$")]
BandName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./+-]{0,63}$")]
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./+-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MAX_PREFIXES = 1 << 24


class Frozen(BaseModel):
    """A value that refuses unknown keys and cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="strings")


class Task(Frozen):
    """What the agents look for.

    Attributes:
        kind: the parametric task; a point in a volume.
        landmarks: names as they stand in the sites' landmark files; their order
            is the order of the network's heads.
        working_spacing_mm: every image is resampled to this isotropic grid.
    """

    kind: Literal["landmark-3d"] = "landmark-3d"
    landmarks: Annotated[tuple[LandmarkName, ...], Field(min_length=1, max_length=64, strict=False)]
    working_spacing_mm: Positive = 1.0

    @model_validator(mode="after")
    def _landmarks_differ(self) -> Self:
        if len(set(self.landmarks)) != len(self.landmarks):
            raise ValueError("landmarks must differ from each other")
        return self


class Model(Frozen):
    """The Q-network.

    Attributes:
        architecture: ``triplanar`` sees three orthogonal cuts through its position.
        roi: side of each cut in samples.
        width: channels of the first convolution; the others are multiples of it.
    """

    architecture: Literal["triplanar"] = "triplanar"
    roi: Annotated[int, Field(ge=9, le=129)] = 45
    width: Annotated[int, Field(ge=4, le=64)] = 16


class Agent(Frozen):
    """How a site trains; every default is visible here.

    Attributes:
        scales: sampling stride of the ROI per level, coarse to fine, in working voxels.
        steps_mm: step length per level, coarse to fine.
        searches: searches stepped in lockstep.
        episode_steps: steps after which a search is cut off (truncated, not terminal).
        updates: gradient steps per round.
        batch: transitions per gradient step.
        learning_rate: Adam's, falling linearly to a tenth over the planned rounds.
        gamma: discount.
        target_decay: share of the online network that moves into the target per update.
        double: Double DQN targets.
        warm_start: share of the planned updates that, before DQN begins, regress the
            immediate rewards of all actions (path supervision, no bootstrap).
        warmup: transitions gathered at random before the first update.
        replay_capacity: transitions kept, oldest overwritten.
        rare_first: exponent of the inverse frequency with which transitions are
            drawn; 0 draws uniformly, which no other way beat at equal effort
            (deploy/results/RESULTS.md).
        importance: exponent of the importance-weight correction, 0 to 1.
        epsilon_end: exploration after the first half of the planned updates.
        gradient_clip: largest L2 norm of a gradient.
        rotation_deg, scale_fraction, shift_mm, gamma_contrast: extent of the random pose
            and contrast drawn for every episode.
        evaluation_starts: searches per subject and landmark in an evaluation.
    """

    scales: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6, strict=False)] = (
        3.0,
        2.0,
        1.0,
    )
    steps_mm: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6, strict=False)] = (
        9.0,
        3.0,
        1.0,
    )
    searches: Annotated[int, Field(ge=1, le=1024)] = 32
    episode_steps: Annotated[int, Field(ge=2, le=1000)] = 20
    updates: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    learning_rate: Positive = 1e-3
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.9
    target_decay: Annotated[float, Field(gt=0, le=1)] = 0.01
    double: bool = True
    warm_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    replay_capacity: Annotated[int, Field(ge=100, le=10_000_000)] = 60_000
    rare_first: Annotated[float, Field(ge=0, le=2)] = 0.0
    importance: Annotated[float, Field(ge=0, le=1)] = 0.5
    epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.1
    gradient_clip: Positive = 10.0
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift_mm: Annotated[float, Field(ge=0, le=500)] = 15.0
    gamma_contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    evaluation_starts: Annotated[int, Field(ge=1, le=100)] = 5

    @model_validator(mode="after")
    def _one_step_per_scale(self) -> Self:
        if len(self.scales) != len(self.steps_mm):
            raise ValueError("scales and steps_mm must have the same length")
        return self


class Experience(Frozen):
    """The count sketch of experience tuples; equal everywhere or tables cannot be added."""

    rows: Annotated[int, Field(ge=1, le=64)] = 5
    columns: Annotated[int, Field(ge=16, le=2_000_000)] = 20_000
    position_bins: Annotated[int, Field(ge=2, le=64)] = 24
    reward_bins: Annotated[int, Field(ge=2, le=16)] = 5


class Pixels(Frozen):
    """How the pixels of multi-band slides become keys, and which keys may be named.

    Attributes:
        bands: names as the slides have them; their order is that of the Gram matrix.
        codec: ``reduced`` takes principal components of the bands, each of them a digit of
            the key; ``all-bands`` makes a digit of every band, in a few grey levels.
            It needs a sketch more for every few digits: at 35 bands five of them.
        components: of ``reduced``: how many.
        bins: of ``reduced``: of every component.
        tail: of ``reduced``: share of pixels that may lie beyond either end of the bins.
        levels: of ``all-bands``: grey levels of every band; a band is brighter than its
            root mean square at level 1, three times as bright at level 2, and so on. Levels
            to the power of bands must fit 64 bits: 40 bands at 3 levels, 64 at 2.
        floor: squared intensity at which tissue begins; 0 has it found in the histogram.
        value_scale: integers per unit of intensity; 1 unless slides hold floats.
        rows, columns: of the sketches.
        presence_floor: pixels that a key needs at a site to count as present there. Half
            of a tissue's different keys occur once or twice; counting those as present
            fills the presence sketch until it cannot tell one site from two, and the
            sites then name nothing. Below 10 only for small images of few keys.
        top: most keys that are recovered.
        key_pixels: fewest pixels in the federation for a key to be named (k).
        key_sites: fewest sites at which it must be present (m); a key of one site never is.
        min_slides, min_pixels: least that must stand behind a site's statistics and sketches.
    """

    bands: Annotated[tuple[BandName, ...], Field(min_length=3, max_length=256, strict=False)]
    codec: Literal["reduced", "all-bands"] = "reduced"
    components: Annotated[int, Field(ge=3, le=64)] = 8
    bins: Annotated[int, Field(ge=2, le=4096)] = 22
    tail: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    levels: Annotated[int, Field(ge=2, le=11)] = 3
    floor: Annotated[int, Field(ge=0, lt=2**40)] = 0
    value_scale: Annotated[int, Field(ge=1, le=2**29)] = 1
    rows: Annotated[int, Field(ge=3, le=64)] = 15
    columns: Annotated[int, Field(ge=16, le=2_000_000)] = 150_000
    presence_floor: Annotated[int, Field(ge=1, le=2**31)] = 10
    top: Annotated[int, Field(ge=1, le=2**20)] = 20_000
    key_pixels: Annotated[int, Field(ge=2, le=2**40)] = 50
    key_sites: Annotated[int, Field(ge=2, le=1000)] = 2
    min_slides: Annotated[int, Field(ge=1, le=10**6)] = 1
    min_pixels: Annotated[int, Field(ge=1, le=2**40)] = 10_000

    @property
    def digits(self) -> tuple[int, int]:
        """How many digits a key has, and the radix of each."""
        if self.codec == "all-bands":
            return len(self.bands), self.levels
        return self.components, self.bins

    @property
    def keys(self) -> int:
        """How many keys there could be."""
        count, radix = self.digits
        return int(radix**count)

    @property
    def ladder(self) -> tuple[int, ...]:
        """Highest digits that the prefix counts keep, then those of every prefix sketch."""
        return (
            band_ladder(*self.digits)
            if self.codec == "all-bands"
            else component_ladder(self.components)
        )

    @property
    def prefixes(self) -> int:
        """How many short prefixes there are: cells of the prefix counts."""
        return int(self.digits[1] ** self.ladder[0])

    @property
    def prefix_tables(self) -> tuple[str, ...]:
        """Names of the prefix sketches, shortest prefixes first."""
        rungs = self.ladder[1:]
        return ("prefix",) if len(rungs) == 1 else tuple(f"prefix_{rung}" for rung in rungs)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of all sketches."""
        return ("full", *self.prefix_tables, "presence")

    @model_validator(mode="after")
    def _keys_can_be_found_again(self) -> Self:
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("bands must differ from each other")
        if alien := self._of_the_other_codec() & self.model_fields_set:
            raise ValueError(f"codec {self.codec} without {min(alien)}")
        if self.codec == "all-bands":
            if self.keys > 2**64:
                raise ValueError(
                    f"at most {int(64 / math.log2(self.levels))} bands at {self.levels} levels, "
                    f'fewer levels, or codec "reduced"'
                )
            return self
        if self.components > len(self.bands):
            raise ValueError("components must be at most as many as the bands")
        if self.keys > 2**64 or self.prefixes > MAX_PREFIXES:
            raise ValueError("bins to the power of components of at most 2**64, prefixes of 2**24")
        return self

    def _of_the_other_codec(self) -> frozenset[str]:
        """Fields that say nothing under this codec."""
        if self.codec == "all-bands":
            return frozenset({"components", "bins", "tail"})
        return frozenset({"levels"})

    @model_serializer(mode="wrap")
    def _of_its_codec(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the fields of the other codec, so that it parses back."""
        whole: dict[str, object] = serialize(self)
        alien = self._of_the_other_codec()
        return {name: value for name, value in whole.items() if name not in alien}


class Embed(Frozen):
    """Which codebook the sites embed their slides with.

    Attributes:
        codec, codebook: SHA-256 of their canonical JSON; the run hands both to the sites.
        groups: names of the codebook's groups by number; their order is part of it.
        min_slides, min_pixels: least that must stand behind a site's counts.
        group_pixels: a group with fewer pixels at a site is reported as 0.
    """

    codec: Sha256
    codebook: Sha256
    groups: Annotated[tuple[GroupName, ...], Field(min_length=1, max_length=255, strict=False)]
    min_slides: Annotated[int, Field(ge=1, le=10**6)] = 1
    min_pixels: Annotated[int, Field(ge=1, le=2**40)] = 10_000
    group_pixels: Annotated[int, Field(ge=1, le=2**40)] = 100


class Rounds(Frozen):
    """The course of a run.

    Attributes:
        training: number of training rounds.
        quorum: fewest sites whose updates make a round count.
        deadline_s: a site that has not answered by then is late for the round.
    """

    training: Annotated[int, Field(ge=1, le=10_000)] = 6
    quorum: Annotated[int, Field(ge=1, le=1000)] = 2
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0


class Limits(Frozen):
    """What a release must keep to, checked at the site's door and again at intake.

    Attributes:
        privacy_tier: 0 public sketch seeds, 1 keyed hashing unknown to the aggregator.
        update_l2: largest L2 norm of a model delta; larger ones are refused.
        max_envelope_bytes: largest single envelope.
        min_images: fewest images a site may train on.
        min_transitions: fewest new transitions behind an update.
        min_sketch_fill: least share of cells of an experience table that differ from zero.
        max_cells_per_input: most table cells a site may send per transition sketched.
    """

    privacy_tier: Annotated[int, Field(ge=0, le=1)] = 1
    update_l2: Positive = 100.0
    max_envelope_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 64 * 2**20
    min_images: Annotated[int, Field(ge=1)] = 2
    min_transitions: Annotated[int, Field(ge=1)] = 100
    min_sketch_fill: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_cells_per_input: Positive = 100.0


# A section that a plan's kind does not have. Nothing reads it, and nothing can give it.
_NO_TASK = Task.model_construct(landmarks=())
_NO_PIXELS = Pixels.model_construct(bands=())
_NO_EMBED = Embed.model_construct(codec="", codebook="", groups=())

_OWN: dict[Kind, tuple[frozenset[str], frozenset[str]]] = {
    "training": (frozenset({"task"}), frozenset({"task", "model", "agent", "experience"})),
    "no-op": (frozenset({"task"}), frozenset({"task", "model", "agent", "experience"})),
    "pixels": (frozenset({"pixels"}), frozenset({"pixels"})),
    "embed": (frozenset({"embed"}), frozenset({"embed"})),
}
"""By kind: the sections that must be given, and those that may."""
_SECTIONS = frozenset().union(*(may for _, may in _OWN.values()))


class FederationPlan(Frozen):
    """Everything that must be equal at every party for a run to mean something.

    ``training`` and ``no-op`` plans have a task, a model, an agent and an experience
    sketch; ``pixels`` plans have pixels; ``embed`` plans say which codebook.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    kind: Kind = "training"
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    task: Task = _NO_TASK
    model: Model = Model()
    agent: Agent = Agent()
    experience: Experience = Experience()
    pixels: Pixels = _NO_PIXELS
    embed: Embed = _NO_EMBED
    rounds: Rounds = Rounds()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _sections_are_its_kinds(self) -> Self:
        must, may = _OWN[self.kind]
        given = self.model_fields_set & _SECTIONS
        if not must <= given:
            raise ValueError(f"a plan of kind {self.kind} with section {min(must - given)}")
        if given - may:
            raise ValueError(f"a plan of kind {self.kind} without section {min(given - may)}")
        if self.kind in ("pixels", "embed") and "training" in self.rounds.model_fields_set:
            raise ValueError(f"a plan of kind {self.kind} without rounds.training")
        return self

    @model_serializer(mode="wrap")
    def _of_its_kind(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the sections that its kind does not have, so that it parses back."""
        whole: dict[str, object] = serialize(self)
        alien = _SECTIONS - _OWN[self.kind][1]
        if self.kind in ("pixels", "embed") and isinstance(rounds := whole["rounds"], dict):
            whole["rounds"] = {n: value for n, value in rounds.items() if n != "training"}
        return {name: value for name, value in whole.items() if name not in alien}

    def canonical(self) -> bytes:
        """Canonical JSON, the defaults of its kind included: the bytes that are fingerprinted."""
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ``canonical()``, 64 hex digits."""
        return sha256_hex(self.canonical())


def describe_validation(error: ValidationError) -> tuple[str, str, str]:
    """(field, expected, got) of the first thing wrong; never the value itself."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "(top level)"
    expected = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return field, "a known key", "an unknown key"
    if first["type"] == "missing":
        return field, "present", "nothing"
    return field, expected[0].lower() + expected[1:], "another value"


def parse_plan(data: object) -> FederationPlan:
    """Validate a decoded plan.

    Raises:
        InputDataError: names the first field that is wrong.
    """
    try:
        return FederationPlan.model_validate(data)
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the plan is not valid", field=field, expected=expected, got=got
        ) from error


def read_plan(path: Path) -> FederationPlan:
    """Read and validate a plan file (TOML).

    Raises:
        InputDataError: missing file, TOML syntax, or an invalid field.
    """
    try:
        return parse_plan(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputDataError(
            "cannot read the plan", field=str(path), got=error.strerror or "an error"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputDataError(
            "the plan is not TOML", field=str(path), got=str(error).split("\n", 1)[0]
        ) from error
