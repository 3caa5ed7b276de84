"""The whole plan: which sections its kind has, and the fingerprint that names it."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.canonical import canonical_json, sha256_hex
from common.plan.embed import Embed
from common.plan.experience import Experience, Subject
from common.plan.kinds import RUNS, Kind
from common.plan.limits import OF_TRAINING, Limits, Rounds
from common.plan.pixels import Pixels
from common.settings import KINDS, AgentSettings, MisfitError, parameters_of, sections_of

# A section that a plan's kind does not have. Nothing reads it, and nothing can give it.
_NO_PIXELS = Pixels.model_construct(bands=())
_NO_EMBED = Embed.model_construct(codec="", codebook="", groups=())

_SECTIONS: Final = frozenset[str]().union(*(run.may for run in RUNS.values()))
_MEASURED: Final[dict[str, object]] = {"poses": 1, "native": False}
"""Defaults of a round's evaluation, which every site does before every round."""


class FederationPlan(AgentSettings):
    """Everything that must be equal at every party for a run to mean something.

    ``training`` and ``no-op`` plans have the settings of an agent and an experience
    sketch; ``pixels`` plans have pixels; ``embed`` plans say which codebook.

    ``learner.updates`` are those of all rounds together, and every schedule runs over
    them. ``evaluation`` says how each site measures the model before every round and at
    the end: under random poses; ``evaluation.native`` counts where a model is evaluated
    on its own.

    Attributes:
        start: digest of the weights that the run starts from, which every site must know;
            none: weights drawn from the plan's seed.
    """

    version: Literal[2] = 2
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    kind: Kind = "training"
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    start: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    experience: Experience = Experience()
    pixels: Pixels = _NO_PIXELS
    embed: Embed = _NO_EMBED
    rounds: Rounds = Rounds()
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _evaluated_briefly(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("kind", "training") in ("pixels", "embed"):
            return data
        given = data.get("evaluation", {})
        return {**data, "evaluation": {**_MEASURED, **given}} if isinstance(given, dict) else data

    @model_validator(mode="after")
    def _sections_are_its_kinds(self) -> Self:
        run = RUNS[self.kind]
        present = self.model_fields_set & _SECTIONS
        if run.must not in present:
            raise ValueError(f"a plan of kind {self.kind} with section {run.must}")
        if alien := present - run.may:
            raise ValueError(f"a plan of kind {self.kind} without section {min(alien)}")
        trained = OF_TRAINING & self.rounds.model_fields_set
        if not self.trains and trained:
            raise ValueError(f"a plan of kind {self.kind} without rounds.{min(trained)}")
        return self

    @model_validator(mode="after")
    def _agent_is_whole(self) -> Self:
        if not self.trains:
            return self
        # No plan knows what lies in the sites' files: what is looked for must be said.
        if (named := KINDS[self.task.kind].named) and not getattr(self.task, named):
            raise MisfitError(f"task.{named}", "one or more names", "none")
        if self.kind == "training" and self.learner.updates < self.rounds.training:
            raise MisfitError("learner.updates", "one or more for each of rounds.training")
        if self.experience.kept:
            self._check_kept()
        parameters_of(self.network, self.space)
        return self

    def _check_kept(self) -> None:
        """Refuse a table that would go with a model and that nobody could ask."""
        fits = {
            "experience.key": (self.experience.key == "place", "place with experience.kept"),
            "learner.method": (self.learner.method == "dqn", "dqn with experience.kept"),
            "task.kind": (
                KINDS[self.task.kind].section == "ladder" and self.space.agents == 1,
                "one of landmarks, each looked for by one agent, with experience.kept",
            ),
            "task.world": (self.task.world != "rl-medical", "cairn with experience.kept"),
        }
        for field, (holds, expected) in fits.items():
            if not holds:
                raise MisfitError(field, expected)

    @property
    def trains(self) -> bool:
        """True where its sites have the settings of an agent, and a model."""
        return RUNS[self.kind].trains

    @property
    def about_slides(self) -> bool:
        """True where its sites read slides, and not scans."""
        return RUNS[self.kind].slides

    @property
    def tells_labels(self) -> bool:
        """True where an update says which labels its site has, and heads are averaged by that."""
        return self.trains and self.task.missing == "allow" and not self.network.private_heads

    @property
    def counts(self) -> Subject | None:
        """Say what its tables of experience count; None where nobody reads any, and none leave.

        A run without work sends one all the same: it shows what a round costs.
        """
        if not self.trains or self.learner.method != "dqn":
            return None
        if self.kind == "no-op":
            return "experience"
        if self.learner.replay == "wrong-first":
            return "errors"
        return "experience" if self.experience.kept or self.learner.replay == "rare-first" else None

    @property
    def table_bytes(self) -> int:
        """Size of the tables of experience that a site sends in a round."""
        tables = {"experience": 1, "errors": 2}.get(self.counts or "", 0)
        return 8 * tables * self.experience.rows * self.experience.columns

    def updates_in(self, round_: int) -> int:
        """Gradient steps of a training round, 1 to ``rounds.training``: equal shares of all."""
        whole, rounds = self.learner.updates, self.rounds.training
        return round_ * whole // rounds - (round_ - 1) * whole // rounds

    @model_serializer(mode="wrap")
    def _of_its_kind_only(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the sections that its kind does not have, so that it parses back."""
        whole: dict[str, object] = serialize(self)
        alien = set(_SECTIONS - RUNS[self.kind].may)
        if self.trains:
            alien |= set(AgentSettings.model_fields) - set(
                sections_of(self.task.kind, AgentSettings.model_fields)
            )
        elif isinstance(rounds := whole["rounds"], dict):
            whole["rounds"] = {n: value for n, value in rounds.items() if n != "training"}
        if self.start is None:  # TOML has no null
            alien.add("start")
        return {name: value for name, value in whole.items() if name not in alien}

    def canonical(self) -> bytes:
        """Canonical JSON, the defaults of its kind included: the bytes that are fingerprinted."""
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ``canonical()``, 64 hex digits."""
        return sha256_hex(self.canonical())
