"""So many seeded cases, and what came of each: accepted, refused by a declared error, or not.

A failure is an exception that no reader declares, a case that takes too long, or memory
that grows. Each is kept with the seed and the bytes that show it.
"""

from __future__ import annotations

import logging
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from common.arrivals.boundary import failure_code
from common.errors import CairnError
from tests.fuzz.decoders import Decoder, all_decoders

SLOWEST_S = 10.0
MOST_GROWN_MIB = 256


class TooSlowError(BaseException):
    """A case took longer than any message may."""


@dataclass
class Outcome:
    """The outcome of a campaign.

    Attributes:
        refused: by reader and class of the declared error.
        accepted: mutated messages that were accepted, by reader; some mutations change nothing.
        failures: by reader and stable code, how often and with which bytes first.
        grown_mib: peak memory at the end less that before the first case.
    """

    cases: int = 0
    seconds: float = 0.0
    grown_mib: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    failures: dict[tuple[str, str], tuple[int, bytes, str]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """True after an undeclared exception, a case that took too long, or memory that grew."""
        return bool(self.failures) or self.grown_mib > MOST_GROWN_MIB

    def note(self, reader: str, code: str, data: bytes, text: str) -> None:
        """Count a failure, keeping the first message that shows it."""
        times, first, why = self.failures.get((reader, code), (0, data, text))
        self.failures[reader, code] = (times + 1, first, why)


def run(decoders: Sequence[Decoder], seed: int, cases: int) -> Outcome:
    """Try ``cases`` mutated messages, the same ones for the same seed.

    Args:
        decoders: readers; each gets its share in turn.
        seed: of the mutations.
        cases: how many.
    """
    outcome, rng = Outcome(), random.Random(seed)
    before, began = _peak_mib(), time.monotonic()
    with _quiet():
        for number in range(cases):
            _try(decoders[number % len(decoders)], rng, outcome)
    outcome.cases, outcome.seconds = cases, time.monotonic() - began
    outcome.grown_mib = _peak_mib() - before
    return outcome


def run_all(seed: int, cases: int) -> Outcome:
    """Try every reader; for a process of its own."""
    return run(all_decoders(), seed, cases)


def _try(decoder: Decoder, rng: random.Random, outcome: Outcome) -> None:
    seed = rng.choice(decoder.seeds)
    data = decoder.mutate(rng, seed)
    outcome.tried[decoder.name] += 1
    signal.setitimer(signal.ITIMER_REAL, SLOWEST_S)
    try:
        decoder.read(data)
    except CairnError as error:
        outcome.refused[decoder.name, type(error).__name__] += 1
    except decoder.declared as error:
        outcome.refused[decoder.name, type(error).__name__] += 1
    except TooSlowError as error:
        outcome.note(decoder.name, failure_code(error), data, "too slow")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - that there is none is what is tried
        outcome.note(decoder.name, failure_code(error), data, repr(error)[:200])
    else:
        if data != seed:
            outcome.accepted[decoder.name] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """No log lines, and an end to what takes too long."""

    def late(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, late)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGALRM, before)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
