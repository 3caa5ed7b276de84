from __future__ import annotations

import dataclasses

import pytest

from common.errors import InternalError
from site_client.agent.evaluation import ErrorSummary
from site_client.worker.training import landmark_error

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
    told = landmark_error("AC", "held-out", SUMMARY)
    assert (told.landmark, told.searches, told.over_10mm) == ("AC", 40, 4)
    assert (told.mean_um, told.median_um, told.consensus_um, told.prior_um) == (1235, 900, 800, 0)


def test_errors_that_are_no_lengths_are_not_reported_as_lengths():
    overlap = dataclasses.replace(SUMMARY, unit="1 - IoU", share_above_10mm=None)
    with pytest.raises(InternalError, match="expected mm, got 1 - IoU"):
        landmark_error("lesion", "training", overlap)
