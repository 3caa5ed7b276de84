"""One record of each type, and an order, small enough to read as bytes."""

import numpy as np
import pytest

from common.plan import FederationPlan, parse_plan
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import OrderHeader, RosterEntry
from common.wire.records import (
    ErrorTables,
    GroupCounts,
    HeavyHitters,
    ModelUpdate,
    PixelSketches,
    PixelStatistics,
    RoundReport,
    SketchTable,
    TaskError,
)


@pytest.fixture
def wire_plan() -> FederationPlan:
    return parse_plan({"name": "vectors", "seed": 7, "task": {"landmarks": ["AC", "PC"]}})


@pytest.fixture
def envelopes(wire_plan) -> dict[str, Envelope]:
    common = {
        "plan_fingerprint": "ab" * 32,
        "site": "north",
        "run": "run-1",
        "round": 3,
    }
    error = TaskError(
        label="AC",
        part="training",
        searches=20,
        mean_milli=2500,
        median_milli=2000,
        consensus_milli=1500,
        prior_milli=15_000,
        over_10mm=1,
    )
    report = RoundReport(
        **common,
        code=ReplyCode.OK,
        images=4,
        held_out=2,
        transitions=200,
        updates=10,
        weights_sha256="cd" * 32,
        link="9a" * 32,
        key_id="0123456789abcdef",
        codec="ef" * 32,
        errors=(error.model_copy(update={"part": "held-out"}), error),
        loss_milli=300,
        epsilon_milli=900,
        train_ms=1234,
    )
    update = ModelUpdate(
        **common, images=4, samples=3, transitions=200, updates=10, tag="0123456789abcdef"
    )
    sketch = SketchTable(
        **common,
        rows=2,
        columns=3,
        key_id="0123456789abcdef",
        codec="ef" * 32,
        total=9,
        tag="1fffffffffffffff",
    )
    replayed = ErrorTables(
        **common,
        rows=2,
        columns=3,
        key_id="0123456789abcdef",
        codec="ef" * 32,
        total=9,
        errors=300,
        tag="1fffffffffffffff",
    )
    weights = {
        "fc.weight": np.array([[3 << 23, -(2 << 24)], [0, 2**31 - 1]], np.int32),
        "fc.bias": np.array([1 << 23, -1], np.int32),
    }
    table = np.array([[3, -4, 2], [-9, 0, 0]], np.int64)
    pixels = {"codec": "ef" * 32, "slides": 2, "pixels": 9}
    keyed = {"key_id": "0123456789abcdef"}
    tag = {"tag": "0000000000000001"}
    survey = PixelStatistics(**common, **pixels, **tag, subject="survey")
    sums = {"histogram": np.array([4, 5], np.int64), "gram": np.array([[8, 2], [2, 9]], np.int64)}
    sketches = PixelSketches(**common, **pixels, **keyed, **tag, rows=2, columns=3)
    counts = {"prefix_counts": np.array([0, 9], np.int64)}
    hitters = HeavyHitters(**common, **keyed, codec="ef" * 32, threshold=50)
    keys = np.array([7, 2**64 - 1], np.uint64).view(np.int64)
    groups = GroupCounts(**common, **pixels, codebook="12" * 32)
    return {
        "PixelStatistics": Envelope(survey, sums),
        "PixelSketches": Envelope(
            sketches, dict.fromkeys(("full", "prefix", "presence"), table) | counts
        ),
        "HeavyHitters": Envelope(hitters, {"keys": keys, "counts": np.array([60, 51], np.int64)}),
        "GroupCounts": Envelope(groups, {"counts": np.array([3, 0, 6], np.int64)}),
        "ModelUpdate": Envelope(update, weights),
        "SketchTable": Envelope(sketch, {"table": table}),
        "ErrorTables": Envelope(replayed, {"replays": table, "errors": 30 * table}),
        "RoundReport": Envelope(report, {}),
        "failure": Envelope(RoundReport(**common, code=ReplyCode.BAD_DATA), {}),
    }


ROSTER = (
    RosterEntry(site="north", ledger_key="12" * 32, samples=40),
    RosterEntry(site="south", ledger_key="34" * 32),
)


@pytest.fixture
def order():
    return OrderHeader(
        run="run-1",
        round=3,
        phase="train",
        # Spelt out, so that a default added to the plan does not move these bytes.
        plan='{"learner":{"gamma":0.9},"name":"vectors","seed":7,"task":{"landmarks":["AC","PC"]}}',
        deadline_s=600,
        roster=ROSTER,
        sum="56" * 32,
    )


@pytest.fixture
def pixel_order():
    return OrderHeader(
        run="run-1",
        round=4,
        phase="recover",
        plan='{"kind":"pixels","name":"vectors","pixels":{"bands":["a","b","c"]},"seed":7}',
        deadline_s=600,
        roster=ROSTER,
        sum="78" * 32,
        codec='{"kind":"pixel-components"}',
    )
