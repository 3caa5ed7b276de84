"""The second pass of a round: what was accepted, out of the archive and into the run's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from aggregator.rounds.answers import AcceptedAnswer, records
from aggregator.rounds.course import Step
from aggregator.rounds.store import RoundState
from aggregator.rounds.work import Work
from common.plan import FederationPlan
from common.sums.addition import Addition, Sum, encode_sum, sum_digest
from common.sums.chain import next_link
from common.wire.rules import summed_of


def merge_round(
    run: str,
    plan: FederationPlan,
    work: Work,
    step: Step,
    start: RoundState,
    answers: Mapping[str, AcceptedAnswer],
    parts: Iterable[Sum] = (),
) -> RoundState:
    """Merge a step's answers, by their sum where they have one.

    Args:
        run: its name.
        plan: of the run.
        work: of the plan's kind.
        step: that was taken.
        start: the state before it.
        answers: that were accepted, and go together; one record of them is held at a time.
        parts: what relays have added up of them; one of them is held at a time.

    Raises:
        CairnError: the records together give nothing to go on with, or the archive no
            longer holds what was accepted.
    """
    kinds = [kind.__name__ for kind in summed_of(plan, step.phase)]
    if not kinds:
        return replace(work.merge(step, start, answers, None), link=start.link)
    addition = Addition(run, step.round)
    here = {site: answer for site, answer in answers.items() if not answer.relay}
    for kind in kinds:
        for site, record in records(here, kind):
            addition.add(site, record)
    for part in parts:
        addition.add_sum(part)
    total = addition.total()
    data = encode_sum(total)
    link = next_link(start.link, sum_digest(data))
    return replace(work.merge(step, start, answers, total), link=link, sum=data)
