"""A key, a history, and summands of sites that tests bend one thing of."""

import hashlib

import numpy as np
import pytest

from common.crypto.keyed import FederationKey
from common.sums.addition import add_records
from common.sums.chain import tag_context
from common.sums.summand import summand_of
from common.sums.tags import make_tag
from common.wire.envelope import Envelope
from common.wire.records import ModelUpdate, SketchTable

KEY = FederationKey(hashlib.sha256(b"the key of these tests").digest()[:16])
LINK = "ab" * 32
SITES = ("east", "north", "west")


def records(site, seed=0, run="run-1", round_=4, link=LINK, key=KEY, samples=3):
    """A site's update and table, tagged."""
    rng = np.random.default_rng([seed, *site.encode()])
    common = {"plan_fingerprint": "cd" * 32, "site": site, "run": run, "round": round_}
    update = ModelUpdate(**common, images=5, samples=samples, transitions=40, updates=2)
    weights = {
        "b": rng.integers(-(2**20), 2**20, 7).astype(np.int32),
        "a": rng.integers(-(2**31) + 1, 2**31, (3, 5)).astype(np.int32),
    }
    sketch = SketchTable(**common, rows=2, columns=8, key_id=key.key_id, codec="ef" * 32, total=40)
    table = {"table": rng.integers(-40, 41, (2, 8)).astype(np.int64)}
    return [tag(e, key, link) for e in (Envelope(update, weights), Envelope(sketch, table))]


def tag(envelope, key=KEY, link=LINK, as_site=None):
    record = envelope.record
    context = tag_context(record.run, record.round, record.record_type, link)
    value = make_tag(key, context, as_site or record.site, summand_of(envelope).pieces())
    return Envelope(record.model_copy(update={"tag": f"{value:016x}"}), envelope.arrays)


@pytest.fixture
def answers():
    return {site: records(site) for site in SITES}


@pytest.fixture
def total(answers):
    return add_records("run-1", 4, answers)
