"""A run of pixels: sums become a codec, tables are added blind, released keys are kept.

The aggregator fits the projection and freezes the ranges from sums that intake has
checked, adds count sketches that it cannot query, and sends the sum back. Which
keys are frequent is found at the sites; what they name is kept only if most of
them name the same, and as the file that a codebook is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator.intake.reply import Reply
from aggregator.rounds.answers import AcceptedAnswer, Measure
from aggregator.rounds.ask import Ask
from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.store import RoundState, RunStore
from common.canonical import sha256_hex
from common.errors import RefusedError
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import (
    codec_text,
    family,
    fit_ranges,
    fit_survey,
    read_codec,
    read_component_codec,
)
from common.plan import FederationPlan
from common.sums.addition import Sum
from common.sums.pixels import ranges_of, survey_of
from common.sums.summand import Summand
from common.wire.records import HeavyHitters, PixelSketches, PixelStatistics

CODEC_FILE: Final = "codec.json"
KEYS_FILE: Final = "keys.safetensors"
COUNTED: Final = "pixels"
FILLED: Final = "cells_filled"


class PixelWork:
    """See ``Work``. The state holds the codec, and in the end the released keys."""

    def __init__(self, plan: FederationPlan) -> None:
        self._plan = plan

    def check_start(self, reply: Reply) -> None:
        """Another family means another release: its sums could not be added."""
        if reply.report.codec != family(self._plan):
            raise RefusedError(
                "a site turns pixels into keys in another way",
                field="codec",
                expected=family(self._plan)[:12],
                got="another digest",
                advice="Update that site to the same release of Cairn",
            )

    @property
    def origin(self) -> str:
        """See ``Work``."""
        return family(self._plan)

    def start(self, agreement: Agreement) -> RoundState:
        """See ``Work``."""
        return RoundState(0, agreement)

    def ask(self, step: Step, state: RoundState | None) -> Ask:
        """See ``Work``."""
        if state is None or step.phase == "survey":
            return Ask()
        return Ask(codec=state.documents[CODEC_FILE].decode("utf-8"))

    def codec(self, step: Step, state: RoundState | None) -> str | None:
        """See ``Work``: the family first, then the codec that the order carries."""
        del step
        document = None if state is None else state.documents.get(CODEC_FILE)
        return family(self._plan) if document is None else sha256_hex(document)

    def measure(self, step: Step, reply: Reply) -> str | None:
        """See ``Work``: the digest of the keys that a site names, with their counts."""
        del step
        named = reply.envelopes.get(HeavyHitters.__name__)
        if named is None:
            return None
        return sha256_hex(named.arrays["keys"].tobytes() + named.arrays["counts"].tobytes())

    def odd(
        self, step: Step, state: RoundState | None, answers: Mapping[str, AcceptedAnswer]
    ) -> dict[str, str]:
        """All sites read the same tables, so they name the same keys: who does not is odd."""
        del state
        if step.phase != "recover" or not answers:
            return {}
        said: dict[Measure, list[str]] = {}
        for site, answer in sorted(answers.items()):
            said.setdefault(answer.measure, []).append(site)
        most = max(said.values(), key=len)
        if 2 * len(most) <= len(answers):
            raise RefusedError(
                "the sites do not name the same keys",
                field="HeavyHitters",
                expected="the same keys and counts from most of the sites",
                got=f"{len(said)} different answers of {len(answers)} sites",
                advice="Compare the sites' releases of Cairn; no key was kept",
            )
        return {
            site: "it names other keys than most sites do"
            for sites in said.values()
            if sites is not most
            for site in sites
        }

    def merge(
        self,
        step: Step,
        state: RoundState,
        answers: Mapping[str, AcceptedAnswer],
        total: Sum | None,
    ) -> RoundState:
        """See ``Work``."""
        section = self._plan.pixels
        if step.phase == "recover":
            return self._keep(step, state, answers)
        if total is None:
            return RoundState(step.round, state.agreement)
        if step.phase == "sketch":
            return self._add(step, state, total.group(PixelSketches.__name__).summand)
        statistics = total.group(PixelStatistics.__name__).summand
        if step.phase == "survey":
            codec = fit_survey(section, survey_of(section, statistics))
        else:
            widest = read_component_codec(self._document(state))
            codec = fit_ranges(section, widest, ranges_of(widest, statistics))
        return self._with_codec(step, state, codec_text(codec))

    def sketched(self, state: RoundState) -> tuple[float, int]:
        """See ``Work``."""
        cells = self._plan.pixels.rows * self._plan.pixels.columns
        return state.facts.get(FILLED, 0) / cells, state.facts.get(COUNTED, 0)

    def _with_codec(self, step: Step, state: RoundState, text: str) -> RoundState:
        data = text.encode("utf-8")
        documents = {CODEC_FILE: data}
        return RoundState(step.round, state.agreement, documents=documents, digest=sha256_hex(data))

    def _add(self, step: Step, state: RoundState, merged: Summand) -> RoundState:
        """Note what people ask of the merged tables, which lie in the round's sum."""
        facts = {
            COUNTED: merged.counts["pixels"],
            FILLED: int(np.count_nonzero(merged.arrays["full"])),
        }
        return RoundState(
            step.round,
            state.agreement,
            facts=facts,
            documents=state.documents,
            digest=state.digest,
        )

    def _keep(
        self, step: Step, state: RoundState, answers: Mapping[str, AcceptedAnswer]
    ) -> RoundState:
        """Write the sites' agreement as the file that ``cairn-aggregator codebook build`` reads."""
        first = answers[min(answers)].record(HeavyHitters.__name__)
        keys: NDArray[np.int64] = np.asarray(first.arrays["keys"], np.int64)
        if keys.size == 0:
            raise RefusedError(
                "no key may be named",
                field="pixels.key_pixels, pixels.key_sites",
                expected="keys that are frequent enough at enough sites",
                got="none",
                advice="Lower the plan's bins or components, or raise its columns",
            )
        codec = read_codec(self._document(state))
        counts = np.asarray(first.arrays["counts"], np.int64)
        released = KeyCounts(codec.digits, keys.view(np.uint64), counts, codec.identity)
        data = released.to_bytes()
        return RoundState(
            step.round,
            state.agreement,
            facts={**state.facts, "keys": int(keys.size)},
            documents={**state.documents, KEYS_FILE: data},
            digest=sha256_hex(data),
        )

    def _document(self, state: RoundState) -> str:
        return state.documents[CODEC_FILE].decode("utf-8")


def work_of(store: RunStore) -> PixelWork:
    """Return the work of a run, with what came beside its plan."""
    return PixelWork(store.plan())
