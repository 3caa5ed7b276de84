"""What tables tell of how alike sites are, to somebody who has no key."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from aggregator.rounds.alike import alike
from common.sketching import CountSketch, SketchSpec

SPEC = SketchSpec(5, 2000, bytes(range(16)))


def answer(counts, kind="SketchTable", name="table"):
    """An accepted answer with a table of keys 0, 1, … counted so often."""
    sketch = CountSketch(SPEC)
    sketch.update(np.repeat(np.arange(len(counts), dtype=np.uint64), counts))
    envelope = SimpleNamespace(arrays={name: np.array(sketch.table)})
    return SimpleNamespace(digests={kind: "0" * 64}, record=lambda _: envelope)


@pytest.mark.parametrize(("kind", "name"), [("SketchTable", "table"), ("ErrorTables", "replays")])
def test_a_site_of_another_kind_is_far_from_the_others(kind, name):
    rng = np.random.default_rng(1)
    usual = rng.integers(0, 40, 600)
    sites = {
        site: answer(np.maximum(usual + rng.integers(-2, 3, 600), 0), kind, name) for site in "abc"
    }
    strange = np.concatenate([np.zeros(600, int), usual])
    told = alike({**sites, "d": answer(strange, kind, name)})
    exact = alike({"a": answer(usual, kind, name), "b": answer(usual, kind, name)})
    assert exact == {"a": 1000, "b": 1000}
    assert told["d"] < 100
    assert min(told[site] for site in "abc") > 850


def test_the_cosine_of_tables_is_that_of_what_they_count():
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 40, 900), rng.integers(0, 40, 900)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    told = alike({"a": answer(one), "b": answer(other)})
    assert told["a"] == told["b"] == pytest.approx(1000 * cosine, abs=40)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"a": answer(np.ones(9, int))},
        {"a": answer(np.ones(9, int)), "b": SimpleNamespace(digests={"ModelUpdate": "0" * 64})},
    ],
)
def test_without_two_tables_nothing_is_alike(answers):
    assert alike(answers) == {}
