"""Conditions of a run before it begins: that it can be carried out, and its place in the queue.

Nothing is begun here: ``aggregator.dispatch`` gives runs their turns. A run is queued whole or
not at all, also when the disk fills up in the middle.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.course import Course
from aggregator.rounds.embedding import CODEBOOK_FILE, check_attached
from aggregator.rounds.events import RoundFinished, RunQueued, read_events
from aggregator.rounds.pixels import CODEC_FILE
from aggregator.rounds.queue import QueueChange, QueueState, RunQueue
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.rounds.superlink import SuperLink
from aggregator.rounds.training import START_FILE, read_start
from aggregator.service import authority, local_address
from common.errors import InputDataError, RefusedError
from common.ledger.durable import StorageError
from common.plan import FederationPlan
from common.schedule import working_rounds
from common.settings import KINDS
from common.wire.pixel_rules import most_bytes
from common.words.leaving import weights_bytes


@dataclass(frozen=True)
class Queued:
    """A run that is in the queue.

    Attributes:
        store: its folder.
        since: size of its journal before it was queued, bytes.
        ahead: the runs that have their turns before it, by name.
    """

    store: RunStore
    since: int
    ahead: tuple[str, ...]


def connect(folder: FederationFolder) -> SuperLink:
    """Return the SuperLink of this federation on this machine."""
    return SuperLink(local_address(folder), authority(folder))


def check_feasible(plan: FederationPlan) -> None:
    """Notice now what every door would refuse in round 2, when the warm-up is over.

    Raises:
        InputDataError: too few transitions a round for the floor or for the sketch's size,
            or sketches of pixels or weights that are larger than an envelope.
    """
    if plan.kind == "pixels" and most_bytes(plan.pixels) > plan.limits.max_envelope_bytes:
        raise InputDataError(
            "every site's door would refuse this plan's sketches",
            field="pixels.rows x pixels.columns",
            expected=f"at most limits.max_envelope_bytes, {plan.limits.max_envelope_bytes} bytes",
            got=f"{most_bytes(plan.pixels)} bytes",
            advice="Ask for fewer columns, or for larger envelopes",
        )
    if plan.trains and weights_bytes(plan) > plan.limits.max_envelope_bytes:
        raise InputDataError(
            "every site's door would refuse this plan's updates",
            field="network",
            expected=f"at most limits.max_envelope_bytes, {plan.limits.max_envelope_bytes} bytes",
            got=f"{weights_bytes(plan)} bytes of weights",
            advice="Ask for a smaller network or view, or for larger envelopes",
        )
    if plan.kind != "training":
        return
    _check_rounds(plan)


def _check_rounds(plan: FederationPlan) -> None:
    """Refuse rounds of so little training that no door lets its update or its table out."""
    updates, learner = plan.updates_in(1), plan.learner
    cells = plan.experience.rows * plan.experience.columns
    gathered, of_searches = updates * learner.searches, "learner.updates x learner.searches"
    floor = plan.limits.min_transitions
    rules: list[tuple[int, float, str, str]] = [
        (gathered, floor, of_searches, "limits.min_transitions")
    ]
    if plan.counts is not None:
        replayed = plan.counts == "errors"
        counted = updates * learner.batch if replayed else gathered
        field = "learner.updates x learner.batch" if replayed else of_searches
        least = max(floor, cells / plan.limits.max_cells_per_input)
        why = "limits.min_transitions, experience.rows x columns / limits.max_cells_per_input"
        rules.append((counted, least, field, why))
    for got, needed, field, why in rules:
        if got < needed:
            raise InputDataError(
                "every site's door would refuse this plan's rounds",
                field=field,
                expected=f"at least {needed:.0f} transitions a round ({why})",
                got=f"{got}",
                advice="Ask for more updates, or for a smaller sketch",
            )


def start_run(
    folder: FederationFolder,
    plan: FederationPlan,
    options: RunOptions,
    attached: Mapping[str, bytes] | None = None,
    *,
    wait: bool = True,
) -> Queued:
    """Make the run's folder and queue it.

    Args:
        folder: the federation's.
        plan: what is carried out.
        options: beside the plan.
        attached: ``codec.json`` and ``codebook.json``, for a plan that names them;
            ``start.safetensors`` for one that starts from a model no run here came to.
        wait: behind runs that go on or wait; else be refused.

    Raises:
        InputDataError: every site's door would refuse what the plan asks for, or a
            document or model that the plan names is absent or another one.
        RefusedError: fewer sites are admitted than the quorum, or asked for; too many runs wait.
        UnreachableError: ``cairn-aggregator up`` does not run.
        StorageError: the disk refused; nothing of the run is left.
    """
    check_feasible(plan)
    documents = dict(attached or {})
    if plan.kind == "embed":
        check_attached(plan, documents.get(CODEC_FILE, b""), documents.get(CODEBOOK_FILE, b""))
    documents |= starting_from(folder, plan, documents.pop(START_FILE, None))
    admitted = len(folder.admitted())
    needed = max(options.min_sites, plan.rounds.quorum)
    if admitted < needed:
        raise RefusedError(
            "too few sites are admitted for this plan",
            field="min-sites, rounds.quorum",
            expected=f"{needed} sites",
            got=f"{admitted}",
            advice="Invite and admit more sites, or lower the quorum",
        )
    queue = RunQueue(folder.queue)
    queue.require_keeper()
    try:
        with queue.changing() as change:
            _require_free(change.state, wait=wait)
            store = RunStore.create(_new_folder(folder, plan), plan, options, documents)
            try:
                return _enqueue(change, store)
            except BaseException:
                shutil.rmtree(store.folder)
                raise
    except OSError as error:
        raise _not_queued(error, folder) from error


def _require_free(state: QueueState, *, wait: bool) -> None:
    if not wait and state.runs:
        raise RefusedError(
            "another run has its turn",
            field=state.runs[0],
            expected="no run that goes on or waits",
            got=f"{len(state.runs)}",
            advice="Leave --no-queue out to wait for it, or end it: cairn-aggregator round stop",
        )


def _new_folder(folder: FederationFolder, plan: FederationPlan) -> Path:
    """Return a folder that no run has: two may begin in one second."""
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{plan.name}"[:60]
    names = (stem, *(f"{stem}-{number}" for number in range(2, 100)))
    return next(path for name in names if not (path := folder.runs / name).exists())


def _enqueue(change: QueueChange, store: RunStore) -> Queued:
    """Journal that a run waits, then have it wait; the queue is what counts."""
    since = store.journal.stat().st_size if store.journal.exists() else 0
    plan, ahead = store.plan(), change.state.runs
    store.record(
        RunQueued(
            run=store.name,
            plan_name=plan.name,
            plan_fingerprint=plan.fingerprint,
            kind=plan.kind,
            unit=KINDS[plan.task.kind].unit,
            rounds=working_rounds(plan),
            ahead=ahead,
        )
    )
    change.add(store.name)
    return Queued(store, since, ahead)


def _not_queued(error: OSError, folder: FederationFolder) -> StorageError:
    """Say that the disk has no room, and that nothing of the run is left."""
    return StorageError(
        "the run was not queued",
        field=str(folder.queue),
        expected="room on the aggregator's disk",
        got=error.strerror or "an error",
        advice="Nothing was started. Free some space and start it again",
    )


def starting_from(
    folder: FederationFolder, plan: FederationPlan, brought: bytes | None = None
) -> dict[str, bytes]:
    """Read the model that a plan starts from as a document; none for a plan that names no model.

    Args:
        folder: the federation's; the newest run that came to the model has it.
        plan: names the model by its digest.
        brought: its bytes, from elsewhere.

    Raises:
        InputDataError: it is not here, it is another one, or the plan names none.
    """
    start = plan.start
    if start is None:
        if brought is not None:
            raise InputDataError(
                "the plan starts from no model",
                field="start",
                expected="the digest of the model that was given",
                got="none",
                advice="Write the digest into the plan, or leave --model out",
            )
        return {}
    data = _model_of_a_run(folder, start) if brought is None else brought
    read_start(plan, data)
    return {START_FILE: data}


def _model_of_a_run(folder: FederationFolder, digest: str) -> bytes:
    """Return the model with this digest, from the newest run that came to it."""
    for name in reversed(folder.run_names()):
        store = RunStore(folder.run(name))
        rounds = [
            event.round
            for _, event in read_events(store.journal)
            if isinstance(event, RoundFinished) and event.model_sha256 == digest
        ]
        files = (store.model_file(number) for number in reversed(rounds))
        model_file = next((file for file in files if file.exists()), None)
        if model_file is not None:
            return model_file.read_bytes()
    raise InputDataError(
        "the model that the plan starts from is not here",
        field="start",
        expected="the digest of a model that a run here came to",
        got=f"{digest[:12]}…",
        advice="`cairn-aggregator status RUN --json` says which model a run came to; "
        "name the file of another with --model",
    )


def resume_run(folder: FederationFolder, name: str, *, wait: bool = True) -> Queued:
    """Queue a run that is to go on after its last round that counts.

    Raises:
        RefusedError: every round of it is finished, it was stopped, or it is queued already.
        UnreachableError: ``cairn-aggregator up`` does not run.
        StorageError: the disk refused; the run is as it was.
    """
    store, queue = RunStore(folder.run(name)), RunQueue(folder.queue)
    if Course(store.plan(), sorted(set(store.finished_rounds()))).step() is None:
        raise RefusedError("nothing is left to do in this run", field=name)
    if store.stop_asked_by() is not None:
        raise RefusedError(
            "the run was stopped, which is for good",
            field=name,
            advice="Its sites answer it no more. Start a new run: cairn-aggregator round start",
        )
    queue.require_keeper()
    try:
        with queue.changing() as change:
            if name in change.state.runs:
                change.add(name)  # which says why not
            _require_free(change.state, wait=wait)
            return _enqueue(change, store)
    except OSError as error:
        raise _not_queued(error, folder) from error
