"""What must hold whatever went wrong. Each law returns what breaks it, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from aggregator.rounds.events import RoundFinished, SiteRejected
from common.crypto.identity import read_public_key, read_signing_key
from common.errors import CairnError
from common.ledger.log import Ledger
from common.ledger.verify import verify_ledger
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from common.wire.records import RoundReport
from site_client.ledger import open_ledger
from site_client.site import SiteFolder
from tests.simulation.faults import LIES_OF_AGGREGATORS, LIES_OF_SITES
from tests.simulation.restore_laws import RESTORE_LAWS, has_an_excuse, with_own_past
from tests.simulation.world import World

Law = Callable[[World], Iterator[str]]


def broken(world: World) -> list[str]:
    """Every breach of a law, each with the law's name."""
    return [f"{law.__name__}: {breach}" for law in LAWS for breach in _breaches(law, world)]


def _breaches(law: Law, world: World) -> Iterator[str]:
    try:
        yield from law(world)
    except CairnError as error:
        yield f"cannot be told: {error}"


def nothing_undeclared_stops_a_process(world: World) -> Iterator[str]:
    yield from world.surprises


def every_byte_that_left_is_recorded(world: World) -> Iterator[str]:
    back = {fault.party for fault in world.faults if fault.kind == "ledger set back"}
    yield from (breach for breach in world.unrecorded if breach.partition(":")[0] not in back)
    for name, life, site in _with_own_past(world):
        with _ledger(site) as ledger:
            for digest, kind in world.left[name].envelopes(life).items():
                record = ledger.find(digest)
                if record is None or record.record_type != kind:
                    yield f"{name}: {kind} {digest[:12]} left and is not recorded"
                elif ledger.payload(digest) is None:
                    yield f"{name}: {kind} {digest[:12]} left and is not archived"


def ledgers_verify(world: World) -> Iterator[str]:
    for name, _, site in _with_own_past(world):
        keys = [read_public_key(path) for path in (site.ledger / "ledger.pub", site.witness_key)]
        try:
            verdict = verify_ledger(site.ledger, *keys)
        except CairnError as error:
            yield f"{name}: {error}"
            continue
        if verdict.broken is not None:
            yield f"{name}: {verdict.broken}"


def a_question_has_one_answer(world: World) -> Iterator[str]:
    for name, _, site in _with_own_past(world):
        answers: dict[tuple[str | None, int | None, str | None], set[str | None]]
        answers = defaultdict(set)
        with _ledger(site) as ledger:
            for record in ledger.records():
                if record.event == "SEND" and record.record_type != "RoundReport":
                    about = (record.run, record.round, record.record_type)
                    answers[about].add(record.payload_sha256)
        for about, digests in answers.items():
            if len(digests) > 1:
                yield f"{name}: {len(digests)} different answers to {about}"


def a_forged_order_gets_a_number_and_no_more(world: World) -> Iterator[str]:
    for name, left in world.left.items():
        for departure in left.departures:
            if departure.order not in left.forged:
                continue
            kinds = set(departure.envelopes.values())
            report = decode(departure.parts["RoundReport.envelope"]).record
            told = isinstance(report, RoundReport) and report.code is ReplyCode.OK
            if kinds != {"RoundReport"} or told:
                yield f"{name}: a forged order was answered with {', '.join(sorted(kinds))}"


def honest_sites_are_not_accused(world: World) -> Iterator[str]:
    for event in world.events:
        if isinstance(event, SiteRejected) and event.site not in world.guilty:
            yield f"{event.site} was rejected in round {event.round}: {event.reason}"


def a_run_ends_and_says_how(world: World) -> Iterator[str]:
    lies = LIES_OF_SITES + LIES_OF_AGGREGATORS
    if world.finished is None:
        yield "the run has no end"
        return
    nobody_lied = not any(f.kind in lies for f in world.faults)
    if world.finished.verdict == "FAILED" and nobody_lied and not has_an_excuse(world):
        yield f"nobody lied, and the run failed for good: {world.finished.reason}"


def rounds_count_once_and_in_order(world: World) -> Iterator[str]:
    rounds: dict[int, str] = {}
    for event in world.events:
        if isinstance(event, RoundFinished):
            if rounds and event.round < max(rounds):
                yield f"round {event.round} after round {max(rounds)}"
            if len(event.sites) < world.template.plan.rounds.quorum:
                yield f"round {event.round} counts below its quorum"
            rounds[event.round] = event.model_sha256


def a_whole_run_comes_to_the_undisturbed_model(world: World) -> Iterator[str]:
    finished = world.finished
    if finished is None or finished.verdict == "FAILED" or not world.whole():
        return
    if finished.model_sha256 != world.template.digest:
        yield f"model {finished.model_sha256[:12]} instead of {world.template.digest[:12]}"


LAWS: tuple[Law, ...] = (
    nothing_undeclared_stops_a_process,
    every_byte_that_left_is_recorded,
    ledgers_verify,
    a_question_has_one_answer,
    a_forged_order_gets_a_number_and_no_more,
    honest_sites_are_not_accused,
    a_run_ends_and_says_how,
    rounds_count_once_and_in_order,
    a_whole_run_comes_to_the_undisturbed_model,
    *RESTORE_LAWS,
)


def _with_own_past(world: World) -> Iterator[tuple[str, int, SiteFolder]]:
    """Every life of the sites that answer for their past: who sets his own disk back does not."""
    return (
        (name, life, site)
        for name in with_own_past(world)
        for life, site in enumerate(world.lives(name))
    )


def _ledger(site: SiteFolder) -> Ledger:
    return open_ledger(site, read_signing_key(site.ledger_key))
