"""Each rule of the door, by an answer that breaks exactly that one."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from common.canonical import canonical_json
from common.errors import CairnError, RefusedError
from common.wire.bounds import most_transitions
from common.wire.codes import ReplyCode
from common.wire.envelope import METADATA_KEY, Envelope, encode
from common.wire.expected import RecordFloors
from common.wire.records import RoundReport
from common.wire.rules import ANSWERS, FIXED_POINT, MAX_TRAIN_MS
from site_client.egress.gate import check, check_answer


def refuse(data, context, field, match=None):
    with pytest.raises(RefusedError, match=match) as caught:
        check(data, context)
    assert caught.value.field == field
    return caught.value


def raw(record, arrays, **metadata):
    text = canonical_json(record.model_dump(mode="json", exclude_none=True)).decode()
    return save(arrays, metadata={METADATA_KEY: text} | metadata)


def test_an_honest_answer_passes_whole(answer):
    payloads = [encode(envelope) for envelope in answer.envelopes()]
    checked = check_answer(payloads, answer.context)
    assert [encode(envelope) for envelope in checked] == payloads


# What kind of thing it is.


def test_a_record_type_that_does_not_exist_is_refused(answer):
    metadata = answer.report.model_dump(mode="json", exclude_none=True)
    text = canonical_json(metadata | {"record_type": "RawImages"}).decode()
    refuse(save({}, metadata={METADATA_KEY: text}), answer.context, "record_type", "unknown")


@pytest.mark.parametrize("phase", ["begin", "evaluate"])
def test_weights_do_not_answer_an_order_that_asks_for_a_report(answer, phase):
    refuse(answer.update_bytes(), answer.within(phase=phase), "record_type")
    check(answer.report_bytes(transitions=0, updates=0), answer.within(phase=phase))
    refuse(answer.report_bytes(updates=0), answer.within(phase=phase), "transitions", "plan's 0")
    refuse(answer.report_bytes(transitions=0), answer.within(phase=phase), "updates", "plan's 0")
    assert ANSWERS[phase] == (RoundReport,)


def test_a_record_type_that_the_site_does_not_allow_is_refused(build):
    answer = build(policy={"records": {"allowed": ["RoundReport"]}})
    refuse(answer.sketch_bytes(), answer.context, "record_type")
    check(answer.report_bytes(), answer.context)


def test_a_field_that_the_record_does_not_have_is_refused(answer):
    metadata = answer.report.model_dump(mode="json", exclude_none=True)
    text = canonical_json(metadata | {"note": "Doe, Jane"}).decode()
    error = refuse(save({}, metadata={METADATA_KEY: text}), answer.context, "RoundReport.note")
    assert "Jane" not in str(error)


# Whose answer it is.


@pytest.mark.parametrize(
    ("field", "value"),
    [("plan_fingerprint", "b" * 64), ("site", "south"), ("run", "run-2"), ("round", 4)],
)
def test_an_answer_to_another_order_is_refused(answer, field, value):
    for data in (
        answer.update_bytes(**{field: value}),
        answer.sketch_bytes(**{field: value}),
        answer.report_bytes(**{field: value}),
    ):
        refuse(data, answer.context, field)


# Model updates.


def test_an_update_of_floating_point_numbers_is_refused(answer):
    answer.weights["fc.weight"] = np.full((4, 3), np.nan, np.float32)
    refuse(answer.update_bytes(), answer.context, "weights/fc.weight", r"float32\[4, 3\]")


def test_an_update_that_counts_more_than_its_images_or_its_roster_is_refused(answer):
    check(answer.update_bytes(samples=4), answer.context)
    for samples, roster in ((0, 9), (5, 9), (3, 2)):
        context = answer.within(samples=roster)
        refuse(answer.update_bytes(samples=samples), context, "samples")


def test_an_update_of_another_shape_is_refused(answer):
    answer.weights["fc.bias"] = np.zeros((4, 1), np.int32)
    refuse(answer.update_bytes(), answer.context, "weights/fc.bias", r"int32\[4, 1\]")


def test_an_update_that_hides_longer_integers_among_its_weights_is_refused(answer):
    answer.weights["fc.bias"] = np.arange(4, dtype=np.int64)
    refuse(answer.update_bytes(), answer.context, "weights/fc.bias", r"int64\[4\]")


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.float16, np.bool_])
def test_an_array_of_a_type_that_may_not_cross_is_refused(answer, dtype):
    data = raw(answer.update, answer.weights | {"fc.bias": np.zeros(4, dtype)})
    refuse(data, answer.context, "fc.bias", "type")


def test_an_update_with_an_array_too_many_is_refused(answer):
    answer.weights["image"] = np.zeros(100, np.int32)
    error = refuse(answer.update_bytes(), answer.context, "weights", "1 of them unknown")
    assert "image" not in str(error)


def test_an_update_that_lacks_an_array_is_refused(answer):
    del answer.weights["fc.bias"]
    refuse(answer.update_bytes(), answer.context, "weights")


def test_an_update_whose_norm_over_all_arrays_is_too_large_is_refused(answer):
    quarter = round(answer.context.plan.limits.update_l2 * FIXED_POINT) // 4
    answer.weights["fc.weight"][:] = quarter  # sqrt(16) values of a quarter: exactly the limit
    answer.weights["fc.bias"][:] = quarter
    check(answer.update_bytes(), answer.context)
    answer.weights["fc.bias"][0] += 1
    refuse(answer.update_bytes(), answer.context, "weights", "larger norm")


@pytest.mark.parametrize("largest", [2**31 - 1, -(2**31)])
def test_an_update_large_enough_to_overflow_its_squares_is_refused(answer, largest):
    answer.weights["fc.weight"][:] = largest
    refuse(answer.update_bytes(), answer.context, "weights", "larger norm")


def test_an_update_that_rests_on_too_few_images_is_refused(answer):
    refuse(answer.update_bytes(images=1), answer.context, "images", "at least 2")


def test_an_update_that_rests_on_too_few_transitions_is_refused(answer):
    refuse(answer.update_bytes(transitions=49), answer.context, "transitions", "at least 50")


def test_an_update_that_claims_absurdly_many_transitions_is_refused(answer):
    refuse(answer.update_bytes(transitions=10**12), answer.context, "transitions", "at most")


def test_the_stricter_of_the_plans_and_the_sites_floors_holds(build):
    floors = {"images": 5, "transitions": 50, "sketch_fill": 0.05}
    strict_site = build(policy={"floors": floors})
    refuse(strict_site.update_bytes(), strict_site.context, "images", "at least 5")
    strict_plan = build(plan={"limits": {"min_images": 6, "min_transitions": 50}})
    refuse(strict_plan.update_bytes(), strict_plan.context, "images", "at least 6")


def test_nobody_can_hand_in_other_floors_than_the_stricter_ones(build):
    strict_site = build(policy={"floors": {"images": 5, "transitions": 50, "sketch_fill": 0.05}})
    with pytest.raises((TypeError, ValueError), match="floors"):
        strict_site.within(floors=RecordFloors(1, 1, 0.0))
    assert strict_site.within(round_bytes=7).floors.images == 5
    assert strict_site.within(policy=build().context.policy).floors.images < 5


def test_more_updates_than_the_plan_asks_for_are_refused(answer):
    refuse(answer.update_bytes(updates=335), answer.context, "updates")


# Sketch tables.


def test_a_table_of_other_dimensions_is_refused(answer):
    answer.table = answer.table[:, :32]
    refuse(answer.sketch_bytes(), answer.context, "table", r"int64\[3, 32\]")
    refuse(answer.sketch_bytes(columns=32), answer.context, "rows, columns")


def test_a_table_of_floating_point_numbers_is_refused(answer):
    answer.table = answer.table.astype(np.float32)
    refuse(answer.sketch_bytes(), answer.context, "table", "float32")


def test_a_table_beside_which_another_array_travels_is_refused(answer):
    answer.extra = {"pixels": np.zeros(9, np.int64)}
    refuse(answer.sketch_bytes(), answer.context, "arrays", "2 arrays")


def test_a_table_under_another_key_is_refused(answer):
    refuse(answer.sketch_bytes(key_id="0" * 16), answer.context, "key_id")


def test_a_table_of_another_codec_is_refused(answer):
    refuse(answer.sketch_bytes(codec="d" * 64), answer.context, "codec")


def test_a_table_under_the_public_key_is_refused_where_the_tier_asks_for_a_secret_one(build):
    public = "fedcba9876543210"
    answer = build(key_id=public)
    refuse(answer.sketch_bytes(key_id=public), answer.context, "key_id", "tier 1")
    limits = {"min_transitions": 50, "privacy_tier": 0}
    open_plan = build(plan={"limits": limits}, key_id=public)
    refuse(open_plan.sketch_bytes(key_id=public), open_plan.context, "key_id", "tier 1")
    both_open = build(plan={"limits": limits}, policy={"privacy": {"least_tier": 0}}, key_id=public)
    check(both_open.sketch_bytes(key_id=public), both_open.context)


@pytest.mark.parametrize("cell", [101, -101, 2**63 - 1, -(2**63)])
def test_a_cell_larger_than_all_keys_together_is_refused(answer, cell):
    answer.table[1, 7] = cell
    refuse(answer.sketch_bytes(), answer.context, "table", "larger cell")


def test_a_row_that_weighs_more_than_its_keys_is_refused(answer):
    answer.table[0, :20] = 10
    refuse(answer.sketch_bytes(), answer.context, "table", "larger sum")


def test_a_table_of_more_keys_than_the_plan_lets_a_site_gather_is_refused(answer):
    most = most_transitions(answer.context.plan)
    answer.table[:] = 0
    answer.table[:, :8] = most // 8
    check(answer.sketch_bytes(total=most), answer.context)
    refuse(answer.sketch_bytes(total=most + 1), answer.context, "total", "the plan's")
    answer.table[:] = 2**52
    refuse(answer.sketch_bytes(total=2**52), answer.context, "total", "the plan's")


def test_an_answer_whose_records_contradict_each_other_does_not_leave(answer):
    sent = [answer.update_bytes(images=5), answer.sketch_bytes(), answer.report_bytes()]
    with pytest.raises(RefusedError, match="contradicts itself: RoundReport: images"):
        check_answer(sent, answer.context)


def test_a_table_of_too_few_keys_is_refused(answer):
    answer.table = np.clip(answer.table, 0, 0)
    answer.table[:, :8] = 1
    refuse(answer.sketch_bytes(total=49), answer.context, "total")


def test_a_table_that_is_nearly_empty_is_refused(answer):
    answer.table[:] = 0
    answer.table[:, :3] = 30
    refuse(answer.sketch_bytes(), answer.context, "table", "sparser")


def test_a_table_with_too_many_cells_per_key_is_refused(build):
    limits = {"min_transitions": 50, "max_cells_per_input": 1.9}
    answer = build(plan={"limits": limits})  # 192 cells, 100 keys
    refuse(answer.sketch_bytes(), answer.context, "table", "cells per key")


# Reports.


def test_a_report_that_carries_an_array_is_refused(answer):
    answer.extra = {"thumbnail": np.zeros(16, np.float32)}
    refuse(answer.report_bytes(), answer.context, "arrays")


def test_a_failure_is_a_number_and_nothing_else(answer):
    refuse(answer.report_bytes(code=ReplyCode.BAD_DATA), answer.context, "report", "number")
    said = {"plan_fingerprint", "site", "run", "round"}
    fields = answer.report.model_dump(include=said)
    for code in set(ReplyCode) - {ReplyCode.OK}:
        bare = RoundReport(**fields, code=code)
        check(encode(Envelope(bare, {})), answer.context)
        images = encode(Envelope(bare.model_copy(update={"images": 1}), {}))
        refuse(images, answer.context, "report")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", 1),
        ("images", 10**7),
        ("transitions", 10**12),
        ("updates", 335),
        ("loss_milli", 2**52),
        ("epsilon_milli", 1001),
        ("train_ms", MAX_TRAIN_MS + 1),
        ("key_id", "0" * 16),
        ("codec", "d" * 64),
    ],
)
def test_a_report_whose_counts_are_out_of_bounds_is_refused(answer, field, value):
    refuse(answer.report_bytes(**{field: value}), answer.context, field)


def test_an_error_of_a_landmark_that_the_plan_does_not_name_is_refused(answer):
    stranger = answer.report.errors[0].model_copy(update={"label": "Doe Jane 1970"})
    error = refuse(answer.report_bytes(errors=(stranger,)), answer.context, "errors.label")
    assert "Doe" not in str(error)


def test_a_landmark_reported_twice_is_refused(answer):
    refuse(answer.report_bytes(errors=answer.report.errors * 2), answer.context, "errors.label")


@pytest.mark.parametrize("searches", [0, 4 * 5 + 1])
def test_an_error_over_more_searches_than_were_possible_is_refused(answer, searches):
    bent = answer.report.errors[0].model_copy(update={"searches": searches, "over_10mm": 0})
    refuse(answer.report_bytes(errors=(bent,)), answer.context, "errors.searches")


def test_more_misses_than_searches_are_refused(answer):
    bent = answer.report.errors[0].model_copy(update={"over_10mm": 21})
    refuse(answer.report_bytes(errors=(bent,)), answer.context, "errors.over_10mm")


# Bytes.


def test_an_envelope_larger_than_the_plan_allows_is_refused(build):
    answer = build(plan={"limits": {"max_envelope_bytes": 1024, "min_transitions": 50}})
    refuse(answer.sketch_bytes(), answer.context, "envelope", "at most 1024")


def test_the_bytes_of_a_round_are_counted_together(answer):
    payloads = [encode(envelope) for envelope in answer.envelopes()]
    size = sum(map(len, payloads))
    policy = answer.context.policy
    exact = policy.model_copy(update={"bytes": policy.bytes.model_copy(update={"per_round": size})})
    check_answer(payloads, answer.within(policy=exact))
    with pytest.raises(RefusedError, match="round must be at most"):
        check_answer(payloads, answer.within(policy=exact, round_bytes=1))


def test_the_bytes_of_a_run_are_counted_together(answer):
    full = answer.within(run_bytes=1_000_000 - len(answer.report_bytes()))
    check(answer.report_bytes(), full)
    refuse(answer.report_bytes(), answer.within(run_bytes=full.run_bytes + 1), "run")


def test_trailing_bytes_are_refused(answer):
    with pytest.raises(RefusedError):
        check(answer.update_bytes() + b"\0", answer.context)


def test_a_header_in_another_order_is_refused(answer):
    data = answer.update_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    turned = json.dumps(dict(reversed(header.items())), separators=(",", ":")).encode()
    turned = turned.ljust(size)
    assert len(turned) == size
    assert turned != data[8 : 8 + size]
    with pytest.raises(RefusedError, match="more than it declares"):
        check(data[:8] + turned + data[8 + size :], answer.context)


def test_a_second_metadata_entry_is_refused(answer):
    with pytest.raises(RefusedError, match="more than it declares"):
        check(raw(answer.update, answer.weights, comment="Doe, Jane"), answer.context)


def test_a_default_that_is_spelt_out_twice_is_refused(answer):
    metadata = answer.report.model_dump(mode="json")
    spelt = metadata | {"weights_sha256": None}
    text = canonical_json(spelt).decode()
    with pytest.raises(RefusedError, match="another way"):
        check(save({}, metadata={METADATA_KEY: text}), answer.context)


def test_an_empty_answer_is_refused(answer):
    with pytest.raises(RefusedError, match="at least one"):
        check_answer([], answer.context)


def test_two_envelopes_of_one_type_are_refused(answer):
    with pytest.raises(RefusedError, match="one envelope of a type"):
        check_answer([answer.report_bytes(), answer.report_bytes(train_ms=1)], answer.context)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_refused_or_is_a_declared_value(answer, data):
    good = encode(data.draw(st.sampled_from(answer.envelopes())))
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        envelope = check(bytes(bad), answer.context)
    except CairnError:
        return
    assert encode(envelope) == bytes(bad)


def test_a_refusal_never_quotes_a_value(answer):
    answer.weights["fc.weight"][0, 0] = 1234567890
    error = refuse(answer.update_bytes(), answer.context, "weights")
    assert not re.search(r"1234", str(error))
