"""A run of embedding: the codebook goes out, counts per group come back.

Maps stay at the sites. What is kept here are the sites' counts, one row each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from aggregator.intake.reply import Reply
from aggregator.rounds.answers import AcceptedAnswer, records
from aggregator.rounds.ask import Ask
from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.pixels import CODEC_FILE
from aggregator.rounds.store import RoundState, RunStore
from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError, RefusedError
from common.keys.codebook import Codebook
from common.keys.pixel_agreement import read_codec
from common.plan import FederationPlan
from common.sums.addition import Sum
from common.wire.records import GroupCounts
from common.wire.transport import CODEBOOK

CODEBOOK_FILE: Final = "codebook.json"
GROUPS_FILE: Final = "groups.json"


def check_attached(plan: FederationPlan, codec: bytes, codebook: bytes) -> None:
    """Refuse documents that are not those the plan names.

    Raises:
        InputDataError: another digest, no codec or codebook, or other groups.
    """
    section = plan.embed
    for name, data, digest in (
        ("codec", codec, section.codec),
        ("codebook", codebook, section.codebook),
    ):
        if sha256_hex(data) != digest:
            raise InputDataError(
                "not the document that the plan names",
                field=f"embed.{name}",
                expected=f"digest {digest[:12]}…",
                got=f"{sha256_hex(data)[:12]}…",
                advice="Write the file's digest into the plan, or take the other file",
            )
    read_codec(codec.decode("utf-8", "replace"))
    groups = Codebook.from_bytes(codebook, codec=section.codec).group_names
    if groups != section.groups:
        raise InputDataError(
            "the codebook has other groups than the plan",
            field="embed.groups",
            expected=", ".join(groups) or "a labelled codebook",
            got=", ".join(section.groups),
        )


class EmbedWork:
    """See ``Work``.

    Args:
        plan: of the run.
        codec, codebook: the documents that the plan names.

    Raises:
        InputDataError: they are not.
    """

    def __init__(self, plan: FederationPlan, codec: bytes, codebook: bytes) -> None:
        check_attached(plan, codec, codebook)
        self._plan = plan
        self._codec = codec.decode("utf-8")
        self._codebook = codebook

    def check_start(self, reply: Reply) -> None:
        """See ``Work``."""
        if reply.report.codec != self._plan.embed.codec:
            raise RefusedError("a site embeds with another codec", field="codec")

    @property
    def origin(self) -> str:
        """See ``Work``."""
        return self._plan.embed.codec

    def start(self, agreement: Agreement) -> RoundState:
        """See ``Work``."""
        return RoundState(0, agreement)

    def ask(self, step: Step, state: RoundState | None) -> Ask:
        """See ``Work``."""
        del state
        if step.phase != "embed":
            return Ask()
        return Ask(codec=self._codec, beside={CODEBOOK: self._codebook})

    def codec(self, step: Step, state: RoundState | None) -> str | None:
        """See ``Work``."""
        del step, state
        return self._plan.embed.codec

    def measure(self, step: Step, reply: Reply) -> None:
        """See ``Work``; nothing is compared."""
        del step, reply

    def odd(
        self, step: Step, state: RoundState | None, answers: Mapping[str, AcceptedAnswer]
    ) -> dict[str, str]:
        """See ``Work``; counts of different sites need not agree."""
        del step, state, answers
        return {}

    def merge(
        self,
        step: Step,
        state: RoundState,
        answers: Mapping[str, AcceptedAnswer],
        total: Sum | None,
    ) -> RoundState:
        """See ``Work``; counts are kept by site and not added."""
        del total  # a sum is of no use here
        if step.phase != "embed":
            return RoundState(step.round, state.agreement)
        sites = {}
        pixels = 0
        for site, envelope in records(answers, GroupCounts.__name__):
            counts = np.asarray(envelope.arrays["counts"]).tolist()
            record = envelope.record
            counted = record.pixels if isinstance(record, GroupCounts) else 0
            names = ("background", *self._plan.embed.groups)
            sites[site] = {"pixels": counted, "groups": dict(zip(names, counts, strict=True))}
            pixels += counted
        data = canonical_json({"codebook": self._plan.embed.codebook, "sites": sites})
        return RoundState(
            step.round,
            state.agreement,
            facts={"pixels": pixels},
            documents={GROUPS_FILE: data},
            digest=sha256_hex(data),
        )

    def sketched(self, state: RoundState) -> tuple[float, int]:
        """See ``Work``: there is no sketch."""
        del state
        return 0.0, 0


def work_of(store: RunStore) -> EmbedWork:
    """Return the work of a run, with what came beside its plan."""
    return EmbedWork(store.plan(), store.attached(CODEC_FILE), store.attached(CODEBOOK_FILE))
