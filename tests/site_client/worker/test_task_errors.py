from __future__ import annotations

import dataclasses

from site_client.agent.evaluation import ErrorSummary
from site_client.worker.training import task_error

SUMMARY = ErrorSummary(
    unit="mm",
    searches=40,
    mean=1.2345678,
    median=0.9,
    std=0.5,
    share_above_10mm=0.1,
    consensus=0.8,
    prior=None,
)


def test_an_evaluation_is_reported_in_whole_micrometres_and_searches():
    told = task_error("AC", "held-out", SUMMARY)
    assert (told.label, told.part, told.searches, told.over_10mm) == ("AC", "held-out", 40, 4)
    assert (told.mean_milli, told.median_milli, told.consensus_milli, told.prior_milli) == (
        1235,
        900,
        800,
        0,
    )


def test_errors_that_are_no_lengths_say_nothing_of_millimetres():
    overlap = dataclasses.replace(SUMMARY, unit="1 - IoU", mean=0.25, share_above_10mm=None)
    told = task_error("lesion", "training", overlap)
    assert (told.mean_milli, told.over_10mm) == (250, None)


def test_what_could_not_be_computed_is_0_and_what_ran_away_the_most_that_fits():
    odd = dataclasses.replace(SUMMARY, median=float("nan"), mean=1e12)
    told = task_error("AC", "training", odd)
    assert (told.median_milli, told.mean_milli) == (0, 10_000_000)
