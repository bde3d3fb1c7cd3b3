"""The endpoints as an OpenAPI document, and what Schemathesis makes of it: answered as it says, never with a 5xx."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from schemathesis import Case, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.conftest import Running


def body(items: str, *required: str) -> dict[str, Any]:
    """A request body, as far as the gateway reads it."""
    block = {"type": "object", "properties": {"type": {"type": "string"}, "text": {"type": "string"}}}
    content = {"anyOf": [{"type": "string"}, {"type": "array", "items": block}]}
    roles = {"enum": ["user", "assistant", "system", "tool"]}
    message = {"type": "object", "properties": {"role": roles, "content": content}, "required": ["role", "content"]}
    bounds = {"enum": ["simple", "moderate", "complex"]}
    router = {"type": "object", "properties": {"min_tier": bounds, "dry_run": {"type": "boolean"}}}
    properties = {
        "model": {"enum": ["auto", "auto:economy", "simple", "complex", "claude-haiku-4-5", "gpt-6-luna"]},
        items: {"type": "array", "items": message, "minItems": 1},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 4096},
        "stream": {"type": "boolean"},
        "tools": {"type": "array", "items": {"type": "object"}},
        "router": router,
    }
    schema = {"type": "object", "properties": properties, "required": ["model", items, *required]}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def operation(error: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """One method of a path; an error's body has that shape."""
    refused = {"description": "an error", "content": {"application/json": {"schema": error}}}
    answer = {"description": "an answer", "content": {"application/json": {}, "text/event-stream": {}}}
    return {"responses": {"200": answer, "4XX": refused}, **fields}


TEXT = {"type": "string", "minLength": 1}
SAID = {"type": "object", "properties": {"message": TEXT, "type": TEXT}, "required": ["message", "type"]}
OF_OPENAI = {"type": "object", "properties": {"error": SAID}, "required": ["error"]}
OF_ANTHROPIC = {
    "type": "object",
    "properties": {"type": {"const": "error"}, "error": SAID, "request_id": TEXT},
    "required": ["type", "error", "request_id"],
}
HEADERS = [{"name": name, "in": "header", "schema": TEXT} for name in ("anthropic-beta", "x-claude-code-session-id")]
BETA = {"name": "beta", "in": "query", "schema": {"type": "boolean"}}
ID = {"name": "id", "in": "path", "required": True, "schema": TEXT}
PLAIN = {"responses": {"200": {"description": "an answer"}, "503": {"description": "not ready"}}}
PATHS = {
    "/v1/messages": operation(OF_ANTHROPIC, requestBody=body("messages", "max_tokens"), parameters=[*HEADERS, BETA]),
    "/v1/messages/count_tokens": operation(OF_ANTHROPIC, requestBody=body("messages"), parameters=[BETA]),
    "/v1/chat/completions": operation(OF_OPENAI, requestBody=body("messages"), parameters=HEADERS),
    "/v1/responses": operation(OF_OPENAI, requestBody=body("input")),
}
SCHEMA = openapi.from_dict(
    {
        "openapi": "3.1.0",
        "info": {"title": "gateway", "version": "1"},
        "paths": {
            **{path: {"post": posted} for path, posted in PATHS.items()},
            "/v1/models": {"get": operation(OF_OPENAI)},
            "/v1/models/{id}": {"get": operation(OF_OPENAI, parameters=[ID])},
            **{path: {"get": PLAIN} for path in ("/healthz", "/readyz", "/metrics", "/api/hello")},
        },
    }
)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@SCHEMA.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_endpoint_answers_as_its_document_says(case: Case, gateway: Running) -> None:
    """Also to bodies, headers and methods that are not in the document: Schemathesis sends both."""
    case.validate_response(case.call(base_url=gateway.url, headers={"x-api-key": "k"}), checks=CHECKS)
