"""Starting a run and noticing when it ends without saying so."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.course import Course
from aggregator.rounds.embedding import CODEBOOK_FILE, check_attached
from aggregator.rounds.events import RoundFinished, RunFinished, read_events
from aggregator.rounds.pixels import CODEC_FILE
from aggregator.rounds.server import RUN_KEY
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.rounds.superlink import SuperLink
from aggregator.rounds.training import START_FILE, read_start
from aggregator.service import authority, local_address
from common.errors import ExitCode, InputDataError, RefusedError, UnreachableError
from common.plan import FederationPlan
from common.wire.pixel_rules import most_bytes
from common.words.leaving import weights_bytes

LOOK_S = 2.0


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
    gathered = plan.updates_in(1) * plan.learner.searches
    cells = plan.experience.rows * plan.experience.columns
    least = max(plan.limits.min_transitions, cells / plan.limits.max_cells_per_input)
    if gathered < least:
        raise InputDataError(
            "every site's door would refuse this plan's sketches",
            field="learner.updates x learner.searches",
            expected=f"at least {least:.0f} transitions a round "
            "(limits.min_transitions, experience.rows x columns / limits.max_cells_per_input)",
            got=f"{gathered}",
            advice="Ask for more updates, or for a smaller sketch",
        )


def start_run(
    folder: FederationFolder,
    plan: FederationPlan,
    options: RunOptions,
    attached: Mapping[str, bytes] | None = None,
) -> tuple[RunStore, int]:
    """Make the run's folder and have Flower conduct it.

    Args:
        folder: the federation's.
        plan: what is carried out.
        options: beside the plan.
        attached: ``codec.json`` and ``codebook.json``, for a plan that names them;
            ``start.safetensors`` for one that starts from a model no run here came to.

    Returns:
        The run and Flower's id of it.

    Raises:
        InputDataError: every site's door would refuse what the plan asks for, or a
            document or model that the plan names is absent or another one.
        RefusedError: fewer sites are admitted than the quorum, or asked for.
        UnreachableError: ``cairn-aggregator up`` does not run.
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
    with connect(folder) as link:
        link.nodes()
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{plan.name}"[:64]
        store = RunStore.create(folder.runs / name, plan, options, documents)
        return store, link.start_run({RUN_KEY: name})


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


def resume_run(folder: FederationFolder, name: str) -> tuple[RunStore, int]:
    """Go on with a run after its last round that counts.

    Raises:
        RefusedError: every round of it is finished.
    """
    store = RunStore(folder.run(name))
    if Course(store.plan(), sorted(set(store.finished_rounds()))).step() is None:
        raise RefusedError("nothing is left to do in this run", field=name)
    with connect(folder) as link:
        return store, link.start_run({RUN_KEY: name})


def guard(
    folder: FederationFolder,
    store: RunStore,
    run_id: int,
    stop: threading.Event,
    over: threading.Event,
) -> None:
    """Until ``stop``: journal the end of a run that Flower ended and the run itself did not.

    A ServerApp that cannot start, or a SuperLink that is killed, writes no event.

    Args:
        folder: the federation's.
        store: the run's.
        run_id: Flower's id of it.
        stop: set by whoever no longer needs a guard.
        over: set when this returns, for whatever reason, so that nobody waits for ever.
    """
    try:
        _guard(folder, store, run_id, stop)
    finally:
        over.set()


def _guard(folder: FederationFolder, store: RunStore, run_id: int, stop: threading.Event) -> None:
    start = store.journal.stat().st_size if store.journal.exists() else 0
    silent = 0
    while not stop.wait(LOOK_S):
        try:
            with connect(folder) as link:
                ended = link.has_ended(run_id)
            silent = 0
        except UnreachableError:
            silent += 1
            ended = silent >= 5
        if not ended or stop.wait(LOOK_S):
            continue
        if any(isinstance(event, RunFinished) for _, event in read_events(store.journal, start)):
            return
        store.record(
            RunFinished(
                verdict="FAILED",
                reason="Flower ended the run; see superexec.log in the federation's flower folder",
                rounds=Course(store.plan(), sorted(set(store.finished_rounds()))).worked,
                exit_code=int(ExitCode.UNREACHABLE if silent else ExitCode.INTERNAL),
            )
        )
        return
