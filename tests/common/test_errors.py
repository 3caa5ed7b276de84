"""Errors say field, expected, got and what to do, and carry a stable exit code."""

from common.errors import InputDataError, RefusedError


def test_a_refusal_reads_as_one_line_with_field_expected_got_and_advice():
    error = RefusedError(
        "egress refused",
        field="weights/fc1",
        expected="finite float32[256, 512]",
        got="float32 with 3 NaN",
        advice="Lower the learning rate",
    )
    assert str(error) == (
        "egress refused: weights/fc1 must be finite float32[256, 512], "
        "got float32 with 3 NaN. Lower the learning rate"
    )
    assert error.as_dict()["exit_code"] == 3


def test_an_error_without_a_field_still_says_what_was_expected():
    assert str(InputDataError("no images", expected="at least 2")) == (
        "no images: expected at least 2"
    )
