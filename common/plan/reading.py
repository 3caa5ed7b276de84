"""Reading a plan, and saying which field is wrong with one; never what stood in it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from common.arrivals.files import read_bounded
from common.arrivals.texts import MOST_TEXT_BYTES, toml_of
from common.errors import InputDataError
from common.plan.federation_plan import FederationPlan
from common.settings import check_keys, describe_validation


def parse_plan(data: object) -> FederationPlan:
    """Validate a decoded plan.

    Raises:
        InputDataError: names the first field that is wrong.
    """
    check_keys(data, FederationPlan, "cairn-aggregator plan --help shows all of them", "the plan")
    try:
        return FederationPlan.model_validate(data)
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the plan is not valid", field=field, expected=expected, got=got
        ) from error


def read_plan(path: Path) -> FederationPlan:
    """Read and validate a plan file (TOML).

    Raises:
        InputDataError: missing file, TOML syntax, or an invalid field.
    """
    try:
        return parse_plan(toml_of(read_bounded(path, MOST_TEXT_BYTES, "the plan")))
    except OSError as error:
        raise InputDataError(
            "cannot read the plan", field=str(path), got=error.strerror or "an error"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InputDataError(
            "the plan is not TOML", field=str(path), got=str(error).split("\n", 1)[0]
        ) from error
