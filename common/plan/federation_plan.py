"""The whole plan: which sections its kind has, and the fingerprint that names it."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.canonical import canonical_json, sha256_hex
from common.plan.embed import Embed
from common.plan.fields import Frozen
from common.plan.limits import Limits, Rounds
from common.plan.pixels import Pixels
from common.plan.training import Agent, Experience, Model, Task

Kind = Literal["training", "no-op", "pixels", "embed"]

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
        present = self.model_fields_set & _SECTIONS
        if not must <= present:
            raise ValueError(f"a plan of kind {self.kind} with section {min(must - present)}")
        if present - may:
            raise ValueError(f"a plan of kind {self.kind} without section {min(present - may)}")
        trained = {"training", "server_momentum"} & self.rounds.model_fields_set
        if self.kind in ("pixels", "embed") and trained:
            raise ValueError(f"a plan of kind {self.kind} without rounds.{min(trained)}")
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
