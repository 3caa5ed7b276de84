"""An order is data: known arrays, a valid plan, and nothing beside them."""

import numpy as np
import pytest

from common.errors import CairnError, InputDataError, RefusedError
from common.wire.envelope import pack
from common.wire.orders import decode_order, encode_order


def test_an_order_is_read_back_as_it_was_written(order, wire_plan):
    header, weights, sketch = order
    decoded = decode_order(encode_order(header, weights, sketch))
    assert decoded.header == header
    assert decoded.plan == wire_plan
    assert decoded.plan.fingerprint == wire_plan.fingerprint
    assert np.array_equal(decoded.sketch, sketch)
    assert {n: a.tolist() for n, a in decoded.weights.items()} == {"fc.bias": [0.5, -1.0]}


def test_an_order_without_a_sketch_has_none(order):
    header, weights, _ = order
    assert decode_order(encode_order(header, weights, None)).sketch is None


def test_an_array_that_no_order_has_is_refused(order):
    header, _, _ = order
    data = pack(header.model_dump(mode="json"), {"code": np.zeros(4, np.int64)})
    with pytest.raises(RefusedError, match="unknown array"):
        decode_order(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [("phase", "exec"), ("deadline_s", 0), ("run", ""), ("command", "rm"), ("message", "Other")],
)
def test_a_header_field_that_is_wrong_is_refused(order, field, value):
    header, _, _ = order
    data = pack(header.model_dump(mode="json") | {field: value}, {})
    with pytest.raises(RefusedError, match="order is not valid") as caught:
        decode_order(data)
    assert caught.value.field == field


def test_a_plan_with_an_unknown_key_is_refused(order):
    header, _, _ = order
    plan = header.plan.replace('"seed":7', '"seed":7,"shell":"rm"')
    with pytest.raises(CairnError):
        decode_order(pack(header.model_dump(mode="json") | {"plan": plan}, {}))


def test_a_plan_that_is_not_valid_is_refused_by_field(order):
    header, _, _ = order
    plan = header.plan.replace('"gamma":0.9', '"gamma":1.9')
    assert plan != header.plan
    with pytest.raises(InputDataError, match=r"agent\.gamma"):
        decode_order(pack(header.model_dump(mode="json") | {"plan": plan}, {}))


def test_a_plan_in_another_spelling_is_refused(order):
    header, _, _ = order
    plan = header.plan.replace('"seed":7', '"seed": 7')
    with pytest.raises(CairnError):
        decode_order(pack(header.model_dump(mode="json") | {"plan": plan}, {}))
