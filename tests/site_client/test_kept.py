"""What a site keeps of its runs: newest first, found by digest, and nothing torn among it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from common.errors import InputDataError, UsageError
from common.model import initial_weights
from common.plan import parse_plan
from site_client.kept import KeptModels, what_came

PLAN = parse_plan(
    {
        "name": "small",
        "seed": 5,
        "kind": "no-op",
        "task": {"landmarks": ["A", "B"], "roi": 9},
        "network": {"width": 4, "hidden": [8]},
    }
)
THEN = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def models(tmp_path):
    """Three models, kept an hour after each other."""
    kept = KeptModels.of_site(tmp_path)
    for number in range(3):
        keep(kept, number)
    return kept


def keep(models, number, **more):
    weights = {n: a + np.float32(number) for n, a in initial_weights(PLAN).items()}
    kept = what_came(weights, PLAN, f"run-{number}", THEN + timedelta(hours=number), **more)
    models.write(weights, PLAN, kept, most=5)
    return kept


def test_the_newest_is_the_latest_and_a_digest_finds_its_own(models):
    each = models.each()
    assert [kept.run for kept in each] == ["run-2", "run-1", "run-0"]
    assert models.find("latest") == models.place(each[0].weights)
    for kept in each:
        for digits in (8, 20, 64):
            assert models.find(kept.weights[:digits]) == models.place(kept.weights)


def test_a_folder_anywhere_is_a_model_and_a_path_into_nothing_is_none(
    models, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert models.find(str(tmp_path)) == tmp_path
    for words in ("abc", "f" * 64, "../x", str(tmp_path / "nothing")):
        with pytest.raises(InputDataError, match="no such model"):
            models.find(words)


def test_digits_that_several_models_have_in_common_are_not_enough(models, monkeypatch):
    twins = [
        kept.model_copy(update={"weights": "ab" * 31 + f"{n:02x}"})
        for n, kept in enumerate(models.each())
    ]
    monkeypatch.setattr(KeptModels, "each", lambda _: twins)
    with pytest.raises(UsageError, match="several models"):
        models.find("abababab")


def test_a_folder_that_is_torn_or_lies_about_itself_is_passed_over(models):
    torn, lying, _ = (models.place(kept.weights) for kept in models.each())
    (torn / "kept.json").write_text("{")
    text = (lying / "kept.json").read_text()
    (lying / "kept.json").write_text(text.replace(lying.name, "0" * 64))
    assert [kept.run for kept in models.each()] == ["run-0"]


def test_only_the_owner_may_look_into_it(models):
    assert models.root.stat().st_mode & 0o077 == 0


def test_errors_are_of_a_part_and_their_mean_is_weighted_by_searches(models):
    errors = (
        {"label": "A", "searches": 3, "mean_milli": 1000, "prior_milli": 5000},
        {"label": "B", "searches": 1, "mean_milli": 5000, "prior_milli": 9000},
        {"label": "A", "part": "held-out", "searches": 2, "mean_milli": 7000, "prior_milli": 1},
        {"label": "B", "part": "held-out", "searches": 0, "mean_milli": 0, "prior_milli": 0},
    )
    kept = keep(models, 9, errors=errors, images=4)
    assert kept.errors_by_part == {"held-out": (7.0, 0.001), "training": (2.0, 6.0)}
    assert models.each()[0] == kept
