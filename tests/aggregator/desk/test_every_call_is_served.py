"""The generated bases answer "not implemented"; our services must answer every call themselves."""

import pytest

from aggregator.desk.coordinator import CoordinatorService
from aggregator.desk.enrolment import EnrolmentService
from common.desk import desk_pb2


@pytest.mark.parametrize(
    ("service", "name"), [(CoordinatorService, "Coordinator"), (EnrolmentService, "Enrolment")]
)
def test_no_call_of_the_proto_falls_through_to_the_generated_base(service, name):
    calls = [method.name for method in desk_pb2.DESCRIPTOR.services_by_name[name].methods]
    assert calls
    base = service.__mro__[1]
    for call in calls:
        assert getattr(service, call) is not getattr(base, call), call
