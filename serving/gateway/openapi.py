"""The OpenAPI page says what the framework does not know: which errors there are, and what a request looks like."""

from typing import Any

from serving.gateway.messages import ErrorResponse
from serving.gateway.refusals import PUBLIC
from sidrec import __version__

_ALWAYS = ("invalid", "unauthorized", "too_large", "unsupported", "failed")
_NAMES = {
    "/v1/recommend": (*_ALWAYS, "overloaded", "unavailable", "deadline"),
    "/v1/events": (*_ALWAYS, "busy", "unavailable"),
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/recommend": {
        "a known user": {"user_id": "17850", "k": 10},
        "a history": {
            "history": ["85123A", "71053"],
            "history_time": [1_290_000_000, 1_290_000_000],
            "exclude_seen": True,
            "deadline_ms": 200,
            "context": {"surface": "basket page"},
        },
        "nobody": {},
    },
    "/v1/events": {
        "a purchase": {
            "events": [{"event_id": "order-1", "user_id": "17850", "item_id": "85123A", "event_time": 1_290_000_000}]
        }
    },
}
_DESCRIPTION = (
    "Recommendations and events over HTTP. Every error is one ErrorResponse; where `retry` is true the same request "
    "may succeed after the seconds in Retry-After. Asking twice is safe: recommending changes nothing, and an event "
    "counts once by its event_id."
)
_FRAMEWORKS_OWN = ("InvalidArgument", "NotFound", "InternalServerError", "TaskStatusResponse")


def described(page: dict[str, Any]) -> dict[str, Any]:
    """Return the framework's page with our errors, examples and the bearer token."""
    components = page["components"]
    schemas = {name: schema for name, schema in components["schemas"].items() if name not in _FRAMEWORKS_OWN}
    components["schemas"] = schemas | {"ErrorResponse": ErrorResponse.model_json_schema()}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    page["security"] = [{"token": []}, {}]
    page["info"] = {"title": "sidrec gateway", "version": __version__, "description": _DESCRIPTION}
    for path, names in _NAMES.items():
        operation = page["paths"][path]["post"]
        answered = operation["responses"]["200"]
        operation["responses"] = {"200": answered} | _errors(names)
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"value": value} for name, value in _EXAMPLES[path].items()}
    return page


def _errors(names: tuple[str, ...]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for name in names:
        status, message, retry = PUBLIC[name]
        response = responses.setdefault(
            str(status),
            {
                "description": "",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}, "examples": {}}
                },
            },
        )
        response["description"] += f"{'; ' * bool(response['description'])}{name}: {message}"
        example = ErrorResponse(error=name, message=message, retry=retry).model_dump()
        response["content"]["application/json"]["examples"][name] = {"value": example}
        if retry:
            response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return responses
