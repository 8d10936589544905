"""/v1/whoami, /v1/version, /v1/openapi.json: the API about itself."""

from __future__ import annotations

import platform

from aiohttp import web

import bridge
from bridge.api import asks, documents, render
from bridge.api.endpoint import Answer, Call, Endpoints

routes = Endpoints("about")
OPENAPI = web.AppKey("openapi", bytes)


@routes.add("GET", "/v1/whoami", answer=documents.CallerDocument)
async def whoami(call: Call[asks.NoQuery, None]) -> Answer:
    """Say who is calling and what it may touch."""
    return Answer(render.caller(call.caller))


@routes.add("GET", "/v1/version", answer=documents.VersionDocument)
async def version(call: Call[asks.NoQuery, None]) -> Answer:
    """Say what runs here."""
    return Answer(documents.VersionDocument(version=bridge.__version__, python=platform.python_version()))


@routes.add("GET", "/v1/openapi.json", answer=None)
async def openapi(call: Call[asks.NoQuery, None]) -> Answer:
    """This API's OpenAPI 3.1 document."""
    return Answer(None, raw=call.request.app[OPENAPI])
