"""A small plan, an answer to it that may leave, and the context it is measured against."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from common.plan import FederationPlan, parse_plan
from common.policy import Policy
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, encode
from common.wire.records import ModelUpdate, RoundReport, SketchTable, TaskError
from common.wire.rules import FIXED_POINT
from site_client.egress.gate import SiteExpected

KEY_ID, PUBLIC_KEY_ID, CODEC = "0123456789abcdef", "fedcba9876543210", "c" * 64


def make_plan(**changes) -> FederationPlan:
    values = {
        "name": "two-landmarks",
        "seed": 7,
        "task": {"landmarks": ["AC", "PC"]},
        "learner": {"replay": "rare-first"},
        "experience": {"rows": 3, "columns": 64},
        "limits": {"update_l2": 10.0, "min_transitions": 50, "max_cells_per_input": 4.0},
    }
    return parse_plan(values | changes)


def make_policy(**changes) -> Policy:
    values = {
        "version": 1,
        "records": {"allowed": ["ModelUpdate", "SketchTable", "RoundReport"]},
        "bytes": {"per_round": 100_000, "per_run": 1_000_000},
        "floors": {"images": 2, "transitions": 50, "sketch_fill": 0.05},
        "privacy": {"least_tier": 1},
        "plans": {
            "kinds": ["training", "no-op"],
            "tasks": ["landmark-3d"],
            "landmarks": "any",
            "fingerprints": "any",
        },
    }
    return Policy.model_validate(values | changes)


def make_table(total: int = 100, rows: int = 3, columns: int = 64) -> np.ndarray:
    rng = np.random.default_rng(5)
    table = np.zeros((rows, columns), np.int64)
    for row in table:
        np.add.at(row, rng.integers(0, columns, total), rng.choice([-1, 1], total))
    return table


@dataclass
class Answer:
    """What a site is about to send; tests bend one thing of it."""

    context: SiteExpected
    update: ModelUpdate
    weights: dict[str, np.ndarray]
    sketch: SketchTable
    table: np.ndarray
    report: RoundReport
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def envelopes(self) -> list[Envelope]:
        return [
            Envelope(self.update, self.weights),
            Envelope(self.sketch, {"table": self.table}),
            Envelope(self.report, {}),
        ]

    def update_bytes(self, **changes) -> bytes:
        return encode(Envelope(self.update.model_copy(update=changes), self.weights))

    def sketch_bytes(self, **changes) -> bytes:
        arrays = {"table": self.table} | self.extra
        return encode(Envelope(self.sketch.model_copy(update=changes), arrays))

    def report_bytes(self, **changes) -> bytes:
        return encode(Envelope(self.report.model_copy(update=changes), self.extra))

    def within(self, **changes) -> SiteExpected:
        return replace(self.context, **changes)


@pytest.fixture
def build():
    """Builder of an answer: ``build(plan_changes, policy_changes)``."""

    def build(plan: dict | None = None, policy: dict | None = None, **context) -> Answer:
        federation_plan = make_plan(**(plan or {}))
        common = {
            "plan_fingerprint": federation_plan.fingerprint,
            "site": "north",
            "run": "run-1",
            "round": 3,
        }
        shapes = {"fc.weight": (4, 3), "fc.bias": (4,)}
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
        values = {
            "site": "north",
            "run": "run-1",
            "round": 3,
            "phase": "train",
            "plan": federation_plan,
            "policy": make_policy(**(policy or {})),
            "shapes": shapes,
            "key_id": KEY_ID,
            "codec": CODEC,
            "public_key_id": PUBLIC_KEY_ID,
        }
        return Answer(
            context=SiteExpected(**(values | context)),
            update=ModelUpdate(**common, images=4, samples=1, transitions=100, updates=10),
            weights={
                name: np.full(shape, FIXED_POINT // 4, np.int32) for name, shape in shapes.items()
            },
            sketch=SketchTable(**common, rows=3, columns=64, key_id=KEY_ID, codec=CODEC, total=100),
            table=make_table(),
            report=RoundReport(
                **common,
                code=ReplyCode.OK,
                images=4,
                transitions=100,
                updates=10,
                weights_sha256="a" * 64,
                key_id=KEY_ID,
                codec=CODEC,
                errors=(error,),
                loss_milli=300,
                epsilon_milli=900,
                train_ms=1234,
            ),
        )

    return build


@pytest.fixture
def answer(build) -> Answer:
    return build()
