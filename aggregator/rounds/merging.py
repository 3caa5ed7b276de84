"""The second pass of a round: what was accepted, out of the archive and into the run's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aggregator.rounds.answers import AcceptedAnswer, records
from aggregator.rounds.course import Step
from aggregator.rounds.store import RoundState
from aggregator.rounds.work import Work
from common.plan import FederationPlan
from common.sums.addition import Addition, encode_sum, sum_digest
from common.sums.chain import next_link
from common.wire.rules import summed_of


def merge_round(
    run: str,
    plan: FederationPlan,
    work: Work,
    step: Step,
    start: RoundState,
    answers: Mapping[str, AcceptedAnswer],
) -> RoundState:
    """Merge a step's answers, by their sum where they have one.

    Args:
        run: its name.
        plan: of the run.
        work: of the plan's kind.
        step: that was taken.
        start: the state before it.
        answers: that were accepted, and go together; one record of them is held at a time.

    Raises:
        CairnError: the records together give nothing to go on with, or the archive no
            longer holds what was accepted.
    """
    kinds = [kind.__name__ for kind in summed_of(plan, step.phase)]
    if not kinds:
        return replace(work.merge(step, start, answers, None), link=start.link)
    addition = Addition(run, step.round)
    for kind in kinds:
        for site, record in records(answers, kind):
            addition.add(site, record)
    total = addition.total()
    data = encode_sum(total)
    link = next_link(start.link, sum_digest(data))
    return replace(work.merge(step, start, answers, total), link=link, sum=data)
