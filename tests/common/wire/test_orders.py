"""An order is words: a valid plan, who may take part, and no array at all."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import canonical_json
from common.errors import CairnError, InputDataError, RefusedError
from common.plan import parse_plan
from common.schedule import Phase, schedule
from common.wire.orders import (
    MAX_ORDER_BYTES,
    MisplacedOrderError,
    Order,
    OrderHeader,
    RosterEntry,
    check_order,
    decode_order,
    encode_order,
)


def bent(order, **changes):
    return canonical_json(order.model_dump(mode="json", exclude_none=True) | changes)


def test_an_order_is_read_back_as_it_was_written(order, wire_plan):
    decoded = decode_order(encode_order(order))
    assert decoded.header == order
    assert decoded.plan == wire_plan
    assert decoded.plan.fingerprint == wire_plan.fingerprint
    assert {name: entry.samples for name, entry in decoded.roster.items()} == {
        "north": 40,
        "south": 1,
    }


def test_there_is_no_field_in_which_an_order_could_carry_weights(order):
    assert set(OrderHeader.model_fields) == {
        *("v", "message", "run", "round", "phase", "plan", "deadline_s", "roster", "sum", "codec"),
    }
    with pytest.raises(RefusedError, match="order is not valid"):
        decode_order(bent(order, weights=[1.0]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phase", "exec"),
        ("deadline_s", 0),
        ("run", ""),
        ("command", "rm"),
        ("message", "Other"),
        ("sum", "12"),
        ("roster", []),
    ],
)
def test_a_header_field_that_is_wrong_is_refused(order, field, value):
    with pytest.raises(RefusedError, match="order is not valid") as caught:
        decode_order(bent(order, **{field: value}))
    assert caught.value.field == field


@pytest.mark.parametrize("entries", [(1, 0), (0, 0)])
def test_a_roster_out_of_order_or_with_a_site_twice_is_refused(order, entries):
    roster = [order.roster[n].model_dump() for n in entries]
    with pytest.raises(RefusedError, match="in order of name"):
        decode_order(bent(order, roster=roster))


@given(number=st.integers(0, 9), phase=st.sampled_from(get_args(Phase)))
def test_an_order_is_in_its_place_only_where_the_plans_schedule_has_its_phase(number, phase):
    plan = parse_plan(
        {"name": "p", "seed": 7, "task": {"landmarks": ["AC"]}, "rounds": {"training": 3}}
    )
    phases = schedule(plan)
    header = OrderHeader(
        run="run-1",
        round=number,
        phase=phase,
        plan=plan.canonical().decode(),
        deadline_s=60,
        roster=(RosterEntry(site="north", ledger_key="1" * 64),),
    )
    if number < len(phases) and phases[number] == phase:
        check_order(Order(header, plan))
    else:
        with pytest.raises(MisplacedOrderError):
            check_order(Order(header, plan))


def test_a_codec_comes_with_no_order_of_training(order, wire_plan):
    misplaced = Order(order.model_copy(update={"codec": "{}"}), wire_plan)
    with pytest.raises(MisplacedOrderError, match="codec"):
        check_order(misplaced)


def test_a_site_counts_as_many_samples_as_the_roster_says_and_a_stranger_as_one(order, wire_plan):
    asked = Order(order, wire_plan)
    assert [asked.samples_of(site) for site in ("north", "south", "east")] == [40, 1, 1]


def test_an_order_in_another_spelling_is_refused(order):
    text = json.dumps(json.loads(encode_order(order)), indent=1)
    with pytest.raises(CairnError, match="canonical"):
        decode_order(text.encode())


def test_an_order_of_a_megabyte_is_refused_before_it_is_read():
    with pytest.raises(RefusedError, match="bytes"):
        decode_order(b"{" * (MAX_ORDER_BYTES + 1))


def test_a_plan_with_an_unknown_key_is_refused(order):
    plan = order.plan.replace('"seed":7', '"seed":7,"shell":"rm"')
    with pytest.raises(CairnError):
        decode_order(bent(order, plan=plan))


def test_a_plan_that_is_not_valid_is_refused_by_field(order):
    plan = order.plan.replace('"gamma":0.9', '"gamma":1.9')
    assert plan != order.plan
    with pytest.raises(InputDataError, match=r"learner\.gamma"):
        decode_order(bent(order, plan=plan))


def test_a_plan_in_another_spelling_is_refused(order):
    plan = order.plan.replace('"seed":7', '"seed": 7')
    with pytest.raises(CairnError):
        decode_order(bent(order, plan=plan))
