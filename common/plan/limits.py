"""The sections that every plan has: the course of a run, and what a release must keep to."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.settings import Frozen, Positive

OF_TRAINING: Final = frozenset({"training", "server_momentum", "train_s", "late_weight"})
"""Fields of ``Rounds`` that mean something where there is a model."""


class Rounds(Frozen):
    """The course of a run.

    Attributes:
        training: number of training rounds.
        quorum: fewest sites whose updates make a round count.
        deadline_s: a site that has not answered by then is late for the round.
        server_momentum: share of the last rounds' way that the averaged model goes on with,
            0 for plain averaging. Sites that do a few steps a round each get as far as one
            that does all their steps; wants many short rounds.
        train_s: seconds that a site trains in a round, 0 for as long as its updates take. It
            stops then, with those it has made, and counts in the average by their number.
        late_weight: share of an update that came too late for its round which its site adds
            to the next one; 0 throws it away.
    """

    training: Annotated[int, Field(ge=1, le=10_000)] = 6
    quorum: Annotated[int, Field(ge=1, le=1000)] = 2
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    train_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    late_weight: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _ends_before_its_deadline(self) -> Self:
        if self.train_s >= self.deadline_s:
            raise ValueError("train_s below deadline_s: who trains until then answers too late")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without options that are 0: plans that use none keep their fingerprint."""
        whole: dict[str, object] = serialize(self)
        return {n: v for n, v in whole.items() if n not in OF_TRAINING or n == "training" or v}


class Limits(Frozen):
    """Limits of every release, checked at the site's door and again at intake.

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
