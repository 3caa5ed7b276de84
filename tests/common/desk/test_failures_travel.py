"""An error keeps its class, fields and exit code across gRPC, and nothing else comes along."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import errors
from common.desk.failures import METADATA_KEY, error_of, metadata_of, status_of
from common.errors import CairnError, InternalError, UnreachableError

CLASSES = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, CairnError)
]
WORDS = st.text(max_size=40)


class Ended(grpc.RpcError, grpc.Call):
    """A call as it looks after the other end has aborted it."""

    def __init__(self, code, metadata):
        self._code, self._metadata = code, metadata

    def code(self):
        return self._code

    def trailing_metadata(self):
        return self._metadata

    def details(self):
        return ""

    def initial_metadata(self):
        return ()

    def is_active(self):
        return False

    def time_remaining(self):
        return None

    def cancel(self):
        return False

    def add_callback(self, callback):
        return False


@given(st.sampled_from(CLASSES), WORDS, WORDS, WORDS, WORDS, WORDS)
def test_every_error_comes_out_as_it_went_in(cls, problem, field, expected, got, advice):
    error = cls(problem, field=field, expected=expected, got=got, advice=advice)
    back = error_of(Ended(status_of(error), metadata_of(error)), "desk:1")
    assert type(back) is cls
    assert back.as_dict() == error.as_dict()


def test_silence_is_unreachable_and_another_status_is_not():
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        assert isinstance(error_of(Ended(code, ()), "desk:1"), UnreachableError)
    assert isinstance(error_of(Ended(grpc.StatusCode.UNIMPLEMENTED, None), "d"), InternalError)


@pytest.mark.parametrize("told", [b"{", b"[]", b"1", b'{"error":"Nonsense","problem":"x"}', b"{}"])
def test_an_unreadable_error_is_an_internal_one(told):
    back = error_of(Ended(grpc.StatusCode.INTERNAL, ((METADATA_KEY, told),)), "desk:1")
    assert isinstance(back, InternalError)


def test_the_text_of_an_unexpected_exception_does_not_travel():
    from aggregator.desk.answering import answering

    secret = "patient Miller"
    counted = []

    def answer(request, context):
        with answering("Method", context, lambda *words: counted.append(words)):
            raise RuntimeError(secret)

    handler = grpc.method_handlers_generic_handler(
        "test.Desk", {"Method": grpc.unary_unary_rpc_method_handler(answer)}
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test.Desk/Method")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=10)
        assert secret not in str(caught.value)
        assert secret.encode() not in b"".join(
            value if isinstance(value, bytes) else value.encode()
            for _, value in caught.value.trailing_metadata()
        )
        back = error_of(caught.value, "desk:1")
        assert isinstance(back, InternalError)
        assert back.got == "RuntimeError"
        assert counted == [("Method", "InternalError")]
    finally:
        server.stop(0)
