"""A rehearsal: orders without a network, to see exactly what would leave.

The same study, policy and gate as a real order, and no door: neither ledger,
spool nor saved state is opened, so nothing can leave and nothing is recorded.
The findings name types, shapes, sizes and norms; they quote no value. Of a round of
training they say, too, what known attacks read out of it (``site_client.exposure``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import CairnError
from common.keys.pixel_agreement import codec_text, fit_ranges, fit_survey, read_component_codec
from common.model import Weights
from common.plan import FederationPlan
from common.policy import Policy, check_phase, check_plan, read_policy
from common.schedule import Phase, schedule
from common.sums.derivation import Derived
from common.sums.derivation import begin as begin_chain
from common.sums.pixels import ranges_of, survey_of
from common.sums.summand import Summand, summand_of
from common.wire.envelope import Array, Envelope, encode
from common.wire.expected import l2_norm
from common.wire.labels import LABELS, without_labels
from common.wire.orders import Order, OrderHeader, RosterEntry, check_order
from common.wire.records import (
    ModelUpdate,
    PixelSketches,
    PixelStatistics,
    Record,
    RoundReport,
)
from common.wire.rules import FIXED_POINT
from site_client.egress.gate import SiteExpected, check_answer
from site_client.exposure.findings import NOT_ASKED, Exposure, why_not
from site_client.heldout.parts import Parts, look_at_parts
from site_client.site import SiteFolder
from site_client.worker.embedding import BesideOrder, read_brought
from site_client.worker.models import Models
from site_client.worker.setup import expect, make_study, read_shared_key
from site_client.worker.site_cases import names_for
from site_client.worker.study import Assignment, Given, Progress, Study, weights_bytes
from site_client.worker.tagging import tagged
from site_client.worker.training import TrainingStudy

if TYPE_CHECKING:
    from site_client.agent.task import Situations

RUN = "dry-run"
NOISE = "none is added: what was computed is what leaves"
"""Said beside bytes and norms, for a reader would look for it; no plan can ask for any."""


@dataclass(frozen=True)
class ArrayFinding:
    """One array that would leave: its name, type, shape, and Euclidean norm."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    l2: float


@dataclass(frozen=True)
class Rehearsed:
    """One envelope that would leave.

    Attributes:
        phase: of the order it answers.
        record_type: what it is.
        bytes: its size.
        header: every field of the record; all of it leaves.
        arrays: what it carries.
        l2: norm over all arrays together, None without any.
        fill: share of a sketch table's cells that differ from zero, else None.
        refusal: the gate's one line, or an empty text if it may leave.
    """

    phase: Phase
    record_type: str
    bytes: int
    header: dict[str, object]
    arrays: tuple[ArrayFinding, ...]
    l2: float | None
    fill: float | None
    refusal: str


@dataclass(frozen=True)
class Rehearsal:
    """The releases that a round of a plan would let out of this site.

    Attributes:
        plan, plan_fingerprint, policy_sha256: what was in force.
        findings: the envelopes, first of the agreement, then of the rounds.
        exposure: what known attacks read out of them.
        bytes: of all of them.
        held_out: how many subjects are not trained on, and where that is set; empty for a
            plan that trains on no scan.
        allowed: whether every one passed the gate.
    """

    plan: str
    plan_fingerprint: str
    policy_sha256: str
    findings: tuple[Rehearsed, ...]
    exposure: Exposure
    held_out: str = ""

    @property
    def bytes(self) -> int:
        """Envelope bytes altogether."""
        return sum(finding.bytes for finding in self.findings)

    @property
    def allowed(self) -> bool:
        """True if everything may leave."""
        return bool(self.findings) and not any(finding.refusal for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """For ``--json``: figures and words; no picture is in it."""
        return {
            "plan": self.plan,
            "plan_fingerprint": self.plan_fingerprint,
            "policy_sha256": self.policy_sha256,
            "findings": [asdict(finding) for finding in self.findings],
            "exposure": self.exposure.as_dict(),
            "bytes": self.bytes,
            "allowed": self.allowed,
            "noise": NOISE,
            "held_out": self.held_out,
        }


def rehearse(
    site: SiteFolder,
    plan: FederationPlan,
    progress: Progress | None = None,
    codebook: Path | None = None,
    codec: Path | None = None,
    seen: Callable[[Envelope], None] | None = None,
    *,
    attacks: bool = True,
) -> Rehearsal:
    """Answer orders of a run of ``plan``, and let nothing out.

    Of a training plan, the first two. Of a pixels plan, every one, as if this site's
    sums were everybody's; a key of a single site is never named, so none will be. Of
    an embed plan, both, with the codebook that a run would bring; no map is written.

    Args:
        site: whose settings, policy, key and data.
        plan: as the coordinator sent it.
        progress: told what is being done.
        codebook: labelled file that an embed plan names.
        codec: of the codebook; None takes the one that a pixels run left here.
        seen: shown every envelope that would leave, in the order of the findings.
        attacks: try what known attacks read out of a round of training; some seconds, and
            at most as long as that round again.

    Raises:
        RefusedError: the policy does not allow the plan; nothing was opened.
        InputDataError: settings, policy, key or images cannot be used, or an embed
            plan's codebook or codec is missing, or another one.
    """
    policy, key = read_policy(site.policy_file), read_shared_key(site)
    check_plan(policy, plan, weights_bytes=weights_bytes(plan))
    name = site.settings().site
    begin = _begin(plan, name)
    embeds = plan.kind == "embed"
    brought = read_brought(plan.embed, codebook, codec, site.worker) if embeds else None
    unasked = why_not(plan) or ("" if attacks else NOT_ASKED)
    watched: list[Situations] = []
    watch = None if unasked else watched.append
    parts = Parts.of(site, policy)
    given = Given(site.data(), parts, progress or _silent, watch=watch, data_file=site.data_file)
    study = make_study(begin, name, key, given)
    findings: list[Rehearsed] = []
    orders = _orders(begin, brought)
    order = next(orders)
    derived = begin_chain(plan, order.header, _start(site, plan, policy))
    while True:
        check_phase(policy, plan, order.header.phase)
        check_order(order)
        answer = study.answer(Assignment(order, derived))
        if key is not None:
            answer = tagged(answer, key, derived.link)
        derived = _as_if_alone(derived, answer)
        findings += _findings(answer, expect(order, name, policy, key))
        if seen is not None:
            for envelope in answer:
                seen(envelope)
        try:
            order = orders.send(answer)
        except StopIteration:
            break
    exposure = Exposure(unasked) if unasked else _expose(study, plan, watched, progress)
    held_out = look_at_parts(site, names_for(plan)).says if plan.kind == "training" else ""
    return Rehearsal(
        plan.name, plan.fingerprint, policy.sha256, tuple(findings), exposure, held_out
    )


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _expose(
    study: Study, plan: FederationPlan, watched: list[Situations], progress: Progress | None
) -> Exposure:
    """Examine what known attacks read out of the round that a study has just trained."""
    from site_client.exposure.examine import RehearsedRound, examine

    last = study.last_update if isinstance(study, TrainingStudy) else None
    if last is None:
        return Exposure("no round was trained")
    release = RehearsedRound(plan, last.before, last.delta, last.cases, watched, last.seed)
    return examine(release, progress)


def _orders(begin: Order, brought: BesideOrder | None) -> Generator[Order, list[Envelope], None]:
    """Yield what the aggregator would ask; takes the answer to each order and gives the next."""
    yield begin
    if brought is not None:
        yield replace(_after(begin, 1, "embed", brought.codec), codebook=brought.codebook)
        return
    if begin.plan.kind != "pixels":
        yield _after(begin, 1, "train")
        return
    sums: list[Envelope] = []
    text: str | None = None
    for number, phase in enumerate(schedule(begin.plan)[1:], start=1):
        order = _after(begin, number, phase, text)
        sums = yield order
        if phase in ("survey", "range"):
            text = _codec_after(order, summand_of(sums[0]))


def _codec_after(order: Order, sums: Summand) -> str:
    """Return the codec that the aggregator would fit if this site were the only one."""
    plan = order.plan.pixels
    if order.header.codec is None:
        return codec_text(fit_survey(plan, survey_of(plan, sums)))
    widest = read_component_codec(order.header.codec)
    return codec_text(fit_ranges(plan, widest, ranges_of(widest, sums)))


def _as_if_alone(derived: Derived, answer: list[Envelope]) -> Derived:
    """Derive what a run of pixels would have come to if this site's sums were everybody's."""
    for envelope in answer:
        match envelope.record:
            case PixelStatistics(subject="survey"):
                return replace(derived, survey=summand_of(envelope))
            case PixelStatistics():
                return replace(derived, ranges=summand_of(envelope))
            case PixelSketches():
                return replace(derived, tables=summand_of(envelope))
            case _:
                continue
    return derived


def _start(site: SiteFolder, plan: FederationPlan, policy: Policy) -> Weights | None:
    """Return the model that a plan starts from, if it names one; it must be kept here."""
    if plan.start is None:
        return None
    return Models(site.worker / "models").start_of(plan, policy, None)


def _begin(plan: FederationPlan, site: str) -> Order:
    """Write what the aggregator would ask first, if this site were the only one of the run."""
    header = OrderHeader(
        run=RUN,
        round=0,
        phase="begin",
        plan=plan.canonical().decode("utf-8"),
        deadline_s=max(1, round(plan.rounds.deadline_s)),
        roster=(RosterEntry(site=site, ledger_key="0" * 64, samples=1_000_000),),
    )
    return Order(header, plan)


def _after(begin: Order, number: int, phase: Phase, codec: str | None = None) -> Order:
    """Write the order of a later round of the same run."""
    words = {"round": number, "phase": phase, "codec": codec}
    return Order(begin.header.model_copy(update=words), begin.plan)


def _findings(envelopes: list[Envelope], expected: SiteExpected) -> list[Rehearsed]:
    findings: list[Rehearsed] = []
    for envelope in envelopes:
        refusal, size = "", 0
        try:
            data = encode(envelope)
            size = len(data)
            check_answer([data], expected)
        except CairnError as error:
            refusal = str(error)
        expected = replace(
            expected,
            round_bytes=expected.round_bytes + size,
            run_bytes=expected.run_bytes + size,
        )
        findings.append(_describe(envelope, expected.phase, size, refusal))
    return findings


def _describe(envelope: Envelope, phase: Phase, size: int, refusal: str) -> Rehearsed:
    record, arrays = envelope.record, envelope.arrays
    table = arrays.get(
        {"SketchTable": "table", "ErrorTables": "replays", "PixelSketches": "full"}.get(
            record.record_type, ""
        )
    )
    return Rehearsed(
        phase=phase,
        record_type=record.record_type,
        bytes=size,
        header=record.model_dump(mode="json", exclude_none=True),
        arrays=tuple(
            ArrayFinding(name, array.dtype.name, tuple(array.shape), _norm(record, {name: array}))
            for name, array in sorted(arrays.items())
        ),
        l2=None if isinstance(record, RoundReport) else _norm(record, arrays),
        fill=None if table is None else float(np.count_nonzero(table) / table.size),
        refusal=refusal,
    )


def _norm(record: Record, arrays: Mapping[str, Array]) -> float:
    """In units of the weights where they are fixed-point."""
    if not isinstance(record, ModelUpdate):
        return l2_norm(arrays)
    if set(arrays) == {LABELS}:  # zeros and ones, no weights
        return l2_norm(arrays)
    return l2_norm(without_labels(arrays)) / FIXED_POINT
