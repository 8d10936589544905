"""The OpenAPI 3.1 page, made from the endpoints. Nothing in it is written by hand but what every route shares."""

from __future__ import annotations

import http
from collections.abc import Sequence
from typing import Any

import pydantic
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from bridge.api import documents, fields, problems
from bridge.api.endpoint import Endpoint

_REF = "#/components/schemas/{model}"
_ALWAYS = (400, 401, 403, 422, 429, 500, 503)
_REQUEST_ID = {"X-Request-Id": {"schema": {"type": "string"}, "description": "Names this request in the log."}}


def page(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """The whole document."""
    wanted: list[tuple[type[pydantic.BaseModel], JsonSchemaMode]] = [(documents.ProblemDocument, "serialization")]
    for endpoint in endpoints:
        if endpoint.answer is not None:
            wanted.append((endpoint.answer, "serialization"))
        if endpoint.body is not None:
            wanted.append((endpoint.body, "validation"))
    _, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "snapbridge",
            "version": version,
            "description": "The same CSI snapshots for every orchestrator. Errors are RFC 9457 problem documents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"clientCertificate": []}, {}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "clientCertificate": {"type": "mutualTLS"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        schema = {"$ref": _REF.format(model=endpoint.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if endpoint.takes_ref:
        schema = pydantic.TypeAdapter(fields.Ref).json_schema()
        found.append(
            {"name": "ref", "in": "path", "required": True, "schema": schema, "description": _ref_text(endpoint)}
        )
    query = endpoint.query.model_json_schema()
    for name, schema in query.get("properties", {}).items():
        schema.pop("title", None)
        text = schema.pop("description", "")
        found.append({"name": name, "in": "query", "required": False, "schema": schema, "description": text})
    if endpoint.keyed:
        schema = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        text = "The same key with the same body answers the first answer again."
        found.append(
            {"name": "Idempotency-Key", "in": "header", "required": False, "schema": schema, "description": text}
        )
    return found


def _ref_text(endpoint: Endpoint) -> str:
    if endpoint.tag == "operations":
        return "The operation's id."
    if endpoint.tag == "inventory":
        return "The driver's name."
    prefix = "" if endpoint.method == "DELETE" else ", the start of it (four characters or more)"
    return f"The uid{prefix}, or CLUSTER/NAMESPACE/NAME (percent-encoded)."


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    success: dict[str, Any] = {"description": http.HTTPStatus(endpoint.status).phrase, "headers": dict(_REQUEST_ID)}
    if endpoint.answer is None:
        success["content"] = {"application/json": {"schema": {"type": "object"}}}
    else:
        schema = {"$ref": _REF.format(model=endpoint.answer.__name__)}
        success["content"] = {"application/json": {"schema": schema}}
    if endpoint.status == 202:
        success["headers"]["Location"] = {"schema": {"type": "string"}, "description": "The operation."}
    found = {str(endpoint.status): success}
    codes = {*_ALWAYS, *endpoint.problems}
    if endpoint.body is not None:
        codes |= {408, 409, 413, 415}
    schema = {"$ref": _REF.format(model=documents.ProblemDocument.__name__)}
    for status in sorted(codes):
        content = {problems.CONTENT_TYPE: {"schema": schema}}
        phrase = http.HTTPStatus(status).phrase
        found[str(status)] = {"description": phrase, "headers": dict(_REQUEST_ID), "content": content}
    return found
