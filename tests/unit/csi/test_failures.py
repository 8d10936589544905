"""The table from gRPC codes to kinds is complete and says what the design says."""

from __future__ import annotations

import grpc
import pytest

from bridge.csi import failures, methods
from bridge.model.failure import FailureKind
from bridge.pb.csi.v1 import csi_pb2

CODES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
REFUSED = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
}


@pytest.mark.parametrize("verb", [method.verb for method in methods.ALL])
def test_every_verb_has_a_row_for_every_code(verb: str) -> None:
    assert set(failures.TABLE[verb]) == set(CODES)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("verb", [method.verb for method in methods.ALL])
def test_kinds_are_those_of_the_design(verb: str, code: str) -> None:
    expected = FailureKind.REFUSED if code in REFUSED else FailureKind.UNSURE
    failure = failures.from_status(verb, code, "text")
    assert failure.kind is expected
    assert failure.code == code
    assert failure.hint


def test_a_code_nobody_knows_is_unsure() -> None:
    assert failures.from_status("CreateSnapshot", "CODE_99", "text").kind is FailureKind.UNSURE


def test_what_was_never_sent_is_refused_whatever_the_code() -> None:
    failure = failures.from_status("CreateSnapshot", "UNAVAILABLE", "no connection", sent=False)
    assert failure.kind is FailureKind.REFUSED
    assert failure.code == "UNAVAILABLE"


def test_secret_values_do_not_get_into_the_text() -> None:
    failure = failures.from_status("CreateSnapshot", "INTERNAL", "login root:hunter22 failed", secrets=["hunter22"])
    assert "hunter22" not in str(failure)
    assert "login root:" in failure.message


@pytest.mark.parametrize("method", methods.ALL, ids=lambda method: method.verb)
def test_methods_are_those_of_the_protocol(method: methods.Method) -> None:  # type: ignore[type-arg]
    described = csi_pb2.DESCRIPTOR.services_by_name[method.service].methods_by_name[method.verb]
    assert described.input_type is method.request.DESCRIPTOR
    assert described.output_type is method.response.DESCRIPTOR
    assert described.server_streaming is method.streams


def test_special_rows_name_verbs_that_exist() -> None:
    assert set(failures._SPECIAL) <= {method.verb for method in methods.ALL}
