"""One record of each type, and an order, small enough to read as bytes."""

import numpy as np
import pytest

from common.plan import FederationPlan, parse_plan
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import OrderHeader
from common.wire.records import LandmarkError, ModelUpdate, RoundReport, SketchTable


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
    error = LandmarkError(
        landmark="AC",
        searches=20,
        mean_um=2500,
        median_um=2000,
        consensus_um=1500,
        prior_um=15_000,
        over_10mm=1,
    )
    report = RoundReport(
        **common,
        code=ReplyCode.OK,
        images=4,
        transitions=200,
        updates=10,
        weights_sha256="cd" * 32,
        key_id="0123456789abcdef",
        codec="ef" * 32,
        errors=(error,),
        loss_milli=300,
        epsilon_milli=900,
        train_ms=1234,
    )
    update = ModelUpdate(**common, images=4, transitions=200, updates=10)
    sketch = SketchTable(
        **common, rows=2, columns=3, key_id="0123456789abcdef", codec="ef" * 32, total=9
    )
    weights = {
        "fc.weight": np.array([[1.5, -2.0], [0.0, 3.25]], np.float32),
        "fc.bias": np.array([0.5, -0.0], np.float32),
    }
    table = np.array([[3, -4, 2], [-9, 0, 0]], np.int64)
    return {
        "ModelUpdate": Envelope(update, weights),
        "SketchTable": Envelope(sketch, {"table": table}),
        "RoundReport": Envelope(report, {}),
        "failure": Envelope(RoundReport(**common, code=ReplyCode.BAD_DATA), {}),
    }


@pytest.fixture
def order():
    header = OrderHeader(
        run="run-1",
        round=3,
        phase="train",
        # Spelt out, so that a default added to the plan does not move these bytes.
        plan='{"agent":{"gamma":0.9},"name":"vectors","seed":7,"task":{"landmarks":["AC","PC"]}}',
        deadline_s=600,
        sketch_total=9,
    )
    weights = {"fc.bias": np.array([0.5, -1.0], np.float32)}
    return header, weights, np.array([[3, -4, 2]], np.int64)
