"""AdmissionReview v1 in and out: reading the API server's question, writing the answer. No server, no cache.

A body that is no such question is a ReviewError with one sentence: it is answered with 400 and never with a crash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import orjson

from adapters.kubernetes.decide import admission

Object = dict[str, Any]

API_VERSION = "admission.k8s.io/v1"
LOOKED_AT = ("CREATE", "UPDATE")


class ReviewError(Exception):
    """The body is no AdmissionReview that can be answered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """One question: may this be done? `kind` is None for what is no snapshot object."""

    uid: str
    kind: admission.Kind | None
    operation: str
    before: Object | None
    after: Object

    @property
    def looked_at(self) -> bool:
        """Whether there is anything to check: deletions, and other people's kinds, are let through."""
        return self.kind is not None and self.operation in LOOKED_AT


def parse(body: bytes) -> Review:
    """Read a question. ReviewError says what is wrong with it."""
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ReviewError(f"the body is not JSON: {error}") from error
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise ReviewError("the body is no AdmissionReview")
    if review.get("apiVersion") != API_VERSION:
        given = str(review.get("apiVersion"))[:80]
        raise ReviewError(f"apiVersion {given} is not known here; admissionReviewVersions must be [v1]")
    request = _object(review.get("request"), "request")
    uid = request.get("uid")
    if not uid or not isinstance(uid, str):
        raise ReviewError("request.uid is missing")
    resource = _object(request.get("resource"), "request.resource")
    operation = str(request.get("operation") or "")
    kind = admission.kind_of(str(resource.get("group") or ""), str(resource.get("resource") or ""))
    if kind is None or operation not in LOOKED_AT:
        return Review(uid, kind, operation, None, {})
    before = _object(request.get("oldObject"), "request.oldObject") if operation == "UPDATE" else None
    return Review(uid, kind, operation, before, _object(request.get("object"), "request.object"))


def answer(uid: str, refusals: Sequence[admission.Refusal]) -> bytes:
    """Yes without refusals, else no with all of them in one message."""
    response: Object = {"uid": uid, "allowed": not refusals}
    if refusals:
        message = "; ".join(refusal.text for refusal in refusals)
        response["status"] = {"status": "Failure", "reason": "Invalid", "code": 422, "message": message}
    return orjson.dumps({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})


def _object(value: object, field: str) -> Object:
    if not isinstance(value, dict):
        raise ReviewError(f"{field} is missing or no object")
    return value
