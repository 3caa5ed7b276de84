"""A plan's demands on a site, in sentences that a person can decide about.

Complete by construction: a field that no sentence tells is listed, with its value, in
the last passage, so that a field added later cannot go unsaid.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from common.cli import counted, megabytes
from common.plan import FederationPlan
from common.words.facts import facts_of
from common.words.kind import words_of
from common.words.leaving import Leaving, leavings, most_in_a_round, most_in_a_run

_NO_IMAGE = "No record has a field for an image, a file name, a subject's name, a path or a text."
_STRICTER = "The site's policy may ask for more, never for less."
_ALWAYS_TOLD = frozenset({"version", "name", "kind"})
_TOLD_OF_RUNS = frozenset({"rounds.quorum", "rounds.deadline_s", "limits.max_envelope_bytes"})


@dataclass(frozen=True)
class Passage:
    """Sentences under a heading."""

    heading: str
    sentences: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def in_words(plan: FederationPlan) -> tuple[Passage, ...]:
    """Everything that a plan asks of a site, in passages that can be read one by one."""
    records, words = leavings(plan), words_of(plan)
    return (
        Passage("What a site is asked", (*words.work(plan), *_course(plan))),
        Passage("What leaves it", tuple(_leaves(each) for each in records) + _together(plan)),
        Passage("What must stand behind it", (*words.floors(plan), _STRICTER)),
        Passage("What the aggregator sees, and what not", words.seen(plan)),
        Passage("What the other sites learn", words.learnt(plan)),
        Passage("The rest of the plan", _rest(plan)),
    )


def all_words(plan: FederationPlan) -> dict[str, object]:
    """Facts, passages and sizes of a plan for ``--json``."""
    return {
        "plan": plan.name,
        "kind": plan.kind,
        "fingerprint": plan.fingerprint,
        "facts": [{"name": name, "value": value} for name, value in facts_of(plan)],
        "words": [passage.as_dict() for passage in in_words(plan)],
        "leaves": [each.as_dict() for each in leavings(plan)],
        "most_bytes_in_a_round": most_in_a_round(plan),
        "most_bytes_in_a_run": most_in_a_run(plan),
        "fields": dict(fields_of(plan)),
    }


def _course(plan: FederationPlan) -> tuple[str, ...]:
    rounds = plan.rounds
    return (
        "Round 0 only compares what everybody starts from. A round counts with "
        f"{counted(rounds.quorum, 'site')} or more; a site that has not answered after "
        f"{rounds.deadline_s:g} s is late for it.",
    )


def _leaves(each: Leaving) -> str:
    often = "once" if each.times == 1 else f"{each.times} times"
    return (
        f"{each.record}, {often} ({', '.join(each.phases)}), at most "
        f"{each.most_bytes:,} bytes: {each.holds}."
    )


def _together(plan: FederationPlan) -> tuple[str, ...]:
    return (
        f"Together at most {megabytes(most_in_a_round(plan))} in a round and "
        f"{megabytes(most_in_a_run(plan))} in the whole run; no envelope above "
        f"{plan.limits.max_envelope_bytes:,} bytes.",
        _NO_IMAGE,
    )


def _rest(plan: FederationPlan) -> tuple[str, ...]:
    covered = _ALWAYS_TOLD | _TOLD_OF_RUNS | words_of(plan).fields
    rest = [f"{name} = {value}" for name, value in fields_of(plan) if name not in covered]
    return (
        ("; ".join(rest) + ".") if rest else "Every field was told above.",
        f"Fingerprint: {plan.fingerprint}",
    )


def fields_of(plan: FederationPlan) -> list[tuple[str, object]]:
    """Dotted name and value of every field of the plan's kind, defaults included."""
    fields: list[tuple[str, object]] = []
    for name, value in plan.model_dump(mode="json").items():
        if isinstance(value, dict):
            fields += [(f"{name}.{field}", inner) for field, inner in value.items()]
        else:
            fields.append((name, value))
    return fields
