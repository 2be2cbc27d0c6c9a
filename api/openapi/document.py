"""Completes FastAPI's OpenAPI document with the bodies of the dialects.

Rerank routes parse their bodies themselves, so FastAPI cannot document them. Here each of them gets its request, its
possible statuses, the exact shape of each answer, and examples that tests execute.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.dialects.base import Dialect
from api.dialects.registry import REPLICATE, RUNPOD, SUPERSET, Family, dialect_for_path, mounted_families
from api.http.error_responses import headers_of
from api.openapi.async_schemas import RESULT_TTL_PARAMETER
from api.openapi.examples import BAD_QUERY, BATCH_ERRORS, ERRORS, NOT_FINISHED, REQUEST_ID, answer_to
from api.openapi.schemas import EXAMPLE_JOB, Job
from api.routes.async_rerank import PATH as ASYNC_PATH
from api.routes.compatibility import INFO_EXAMPLE
from shared.errors import (
    Forbidden,
    InternalError,
    JobError,
    JobNotFound,
    RerankqError,
    StoreUnavailable,
    Unauthorized,
    WaitTimedOut,
)

INTRODUCTION = """
Rank documents by their relevance to a query. Open **superset**, `POST /v1/rerank`, then **Try it out**.

**Existing clients.** Each section below is one system's API under its own prefix, errors included: change the client's
base URL as its section describes. Most clients also work at the root, whose answers have the fields that nearly all
clients read.

**Waiting.** A call waits for its result. `Prefer: respond-async` returns 202 with a job at once, `Prefer: wait=5` after
five seconds without a result; `/v1/jobs/{id}/results` then has exactly what the waiting call would have returned.
Requests with the same `Idempotency-Key` share one job, which can be read again.

**Keys.** Where keys are configured, send `Authorization: Bearer KEY` or `Api-Key: KEY`.

**Errors** are JSON with one sentence that names the field, in the shape of the path's dialect. `Retry-After` is in
whole seconds.
"""
_RESULTS = "/v1/jobs/{job_id}/results"
_PUBLIC = ("/health", "/ready", "/v1/cluster/auth")
_JSON = "application/json"
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async` returns a job at once, `wait=N` after N seconds.",
        "schema": {"type": "string"},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Requests with the same key and body share one job.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
]
_HEADERS: dict[str, dict[str, Any]] = {
    "Connection": {"description": "close: later data is not read.", "schema": {"type": "string"}},
    "Location": {"description": "The path of the job.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Whole seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "Preference-Applied": {"description": "The applied preference.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}},
}


def describe_api(app: FastAPI, root: Family) -> dict[str, Any]:
    """Install the document on the app; it is generated on the first request."""
    if not app.openapi_schema:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=INTRODUCTION,
            routes=app.routes,
            tags=list(_tags(root)),
        )
        shapes = _Shapes(root)
        for path, operations in document["paths"].items():
            dialect = _reranker(path, root)
            for operation in operations.values():
                _complete(operation, path, dialect or dialect_for_path(path, root), shapes)
                if dialect is not None:
                    operation |= _describe(dialect, path, shapes)
                elif path.endswith(ASYNC_PATH):
                    _describe_async(operation, dialect_for_path(path, root), shapes)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(shapes.definitions)
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "Api-Key"},
        }
        document["security"] = [{}, {"bearer": []}, {"key": []}]
        app.openapi_schema = document
    return app.openapi_schema


class _Shapes:
    """The schemas of all requests and answers of the dialects, by their names in the document."""

    def __init__(self, root: Family) -> None:
        dialects = [dialect for _, family in mounted_families(root) for dialect in family.dialects]
        asked = {dialect.request_model for dialect in dialects}
        self._answers = sorted({model for dialect in dialects for model in dialect.answer_models}, key=_name)
        errors = {dialect.error_model for dialect in (*dialects, *RUNPOD.dialects, *REPLICATE.dialects)}
        answered: set[type[BaseModel]] = {*self._answers, *errors, Job}
        models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
            *((model, "validation") for model in sorted(asked, key=_name)),
            *((model, "serialization") for model in sorted(answered, key=_name)),
        ]
        self._references, schema = models_json_schema(models, ref_template="#/components/schemas/{model}")
        self.definitions: dict[str, Any] = schema.get("$defs", {})

    def asked(self, models: Iterable[type[BaseModel]]) -> dict[str, Any]:
        return self._any_of([self._references[model, "validation"] for model in models])

    def answered(self, models: Iterable[type[BaseModel]]) -> dict[str, Any]:
        return self._any_of([self._references[model, "serialization"] for model in models])

    def any_answer(self) -> dict[str, Any]:
        return self.answered(self._answers)

    @staticmethod
    def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _tags(root: Family) -> Iterator[dict[str, str]]:
    yield {"name": root.name, "description": f"The dialect at the root. {root.about}"}
    yield {"name": "jobs", "description": "The jobs of calls that do not wait, and jobs of many requests."}
    yield {"name": "files", "description": "OpenAI's file API: the inputs and results of batches."}
    yield {"name": "batches", "description": "OpenAI's batch API: a file of requests, ranked in the background."}
    yield {"name": "webhooks", "description": "Where the ends of jobs and batches are reported."}
    yield {"name": "admin", "description": "For operators: a key with the scope `admin`."}
    yield {"name": RUNPOD.name, "description": RUNPOD.about}
    yield {"name": REPLICATE.name, "description": REPLICATE.about}
    yield {"name": "models", "description": "The served models."}
    yield {"name": "pools", "description": "Load, workers, and how many workers there should be."}
    yield {"name": "operations", "description": "For operators and load balancers. No key is needed."}
    yield {"name": "clients", "description": "Routes that clients of other systems call beside rerank."}
    yield from (
        {"name": family.name, "description": family.about}
        for prefix, family in mounted_families(root)
        if prefix and family is not root
    )


def _reranker(path: str, root: Family) -> Dialect | None:
    """The dialect that reranks at a path, None for other paths."""
    for prefix, family in mounted_families(root):
        for dialect in family.dialects:
            if path.startswith(prefix) and path.removeprefix(prefix) in dialect.paths:
                return dialect
    return None


def _describe(dialect: Dialect, path: str, shapes: _Shapes) -> dict[str, Any]:
    """Describe the request, the answers and the examples of a rerank route."""
    readers = dialect.readers(path)
    asked: dict[str, Any] = {}
    answered: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for reader in readers:
        for name, body in reader.examples.items():
            label = name if reader is dialect else f"{reader.name}: {name}"
            status, answer = answer_to(dialect, body)
            asked[label] = {"value": body}
            answered[status][label] = {"value": answer}
    responses = {
        "200": _response("The documents, best first.", shapes.answered(dialect.answer_models), answered.pop(200)),
        "202": _response(
            "A job, to a caller that asked for it by `Prefer`.",
            shapes.answered([Job]),
            {"job": {"value": EXAMPLE_JOB}},
            "Location",
            "Preference-Applied",
        ),
    } | _errors(dialect, ERRORS, shapes)
    for status, examples in answered.items():
        refusal = _response("The request is wrong.", shapes.answered([dialect.error_model]), {})
        responses.setdefault(str(status), refusal)["content"][_JSON]["examples"] |= examples
    return {
        "parameters": _PARAMETERS,
        "requestBody": _request_body([reader.request_model for reader in readers], asked, shapes),
        "responses": responses,
    }


def _describe_async(operation: dict[str, Any], dialect: Dialect, shapes: _Shapes) -> None:
    """Add the request and its errors to the route that accepts a rerank request for later."""
    examples = {name: {"value": body} for name, body in dialect.examples.items()}
    operation["parameters"] = [RESULT_TTL_PARAMETER, *_PARAMETERS[1:]]
    operation["requestBody"] = _request_body([dialect.request_model], examples, shapes)
    refusals = [error for error in ERRORS if not isinstance(error, JobError | JobNotFound | WaitTimedOut)]
    operation["responses"] |= _errors(dialect, refusals, shapes)


def _request_body(models: list[type[BaseModel]], examples: dict[str, Any], shapes: _Shapes) -> dict[str, Any]:
    return {"required": True, "content": {_JSON: {"schema": shapes.asked(models), "examples": examples}}}


def _complete(operation: dict[str, Any], path: str, dialect: Dialect, shapes: _Shapes) -> None:
    """Add the errors that every route may return, and the shape of the operation's own errors."""
    responses = operation["responses"]
    # FastAPI documents its own validation errors for path parameters, which are not used.
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]
    common: list[RerankqError] = [error for error in ERRORS if isinstance(error, InternalError)]
    if not _is_public(path):
        common += [error for error in ERRORS if isinstance(error, Unauthorized | Forbidden)]
    if not _is_health_check(path):
        common += [error for error in ERRORS if isinstance(error, StoreUnavailable)]
    for status, response in _errors(dialect, common, shapes).items():
        responses.setdefault(status, response)
    of_route = _errors(dialect, _errors_of_route(path), shapes)
    for status, response in responses.items():
        if int(status) >= 400 and "content" not in response:
            plain = _response("", shapes.answered([dialect.error_model]), {})
            response["content"] = of_route.get(status, plain)["content"]
    if path.endswith("/info"):
        # FastAPI omits null values.
        responses["200"]["content"][_JSON]["example"] = INFO_EXAMPLE
    if path == _RESULTS:
        answer = {"superset": {"value": answer_to(SUPERSET.dialects[0], SUPERSET.dialects[0].examples["strings"])[1]}}
        responses["200"]["content"] = {_JSON: {"schema": shapes.any_answer(), "examples": answer}}


def _is_public(path: str) -> bool:
    """Whether the route needs no key."""
    return path in _PUBLIC or _is_health_check(path)


def _is_health_check(path: str) -> bool:
    """Whether the route tells only that the process answers. RunPod's health is that of a queue."""
    return path.endswith(("/health", "/ready", "/live")) and not path.startswith(f"/{RUNPOD.name}/")


def _errors_of_route(path: str) -> Iterator[RerankqError]:
    """The errors that can be examples for a route that is no rerank route."""
    yield NOT_FINISHED
    yield BAD_QUERY
    folder = next((name for name in ("jobs", "files", "batches", "webhooks") if path.startswith(f"/v1/{name}")), None)
    folder = "jobs" if ASYNC_PATH in path or "/predictions/" in path else folder
    subjects = (None, "Idempotency-Key", "id" if folder in ("jobs", "webhooks") else "model")
    yield from (error for error in ERRORS if error.param in subjects)
    if folder is not None:
        yield from BATCH_ERRORS[folder]


def _errors(dialect: Dialect, errors: Iterable[RerankqError], shapes: _Shapes) -> dict[str, Any]:
    """The responses for these errors, by status."""
    by_status: defaultdict[str, list[RerankqError]] = defaultdict(list)
    for error in errors:
        by_status[str(dialect.status_of(error))].append(error)
    return {
        status: _response(
            " ".join(f"{type(error).__doc__}" for error in alike),
            shapes.answered([dialect.error_model]),
            {error.code: {"value": dialect.render_error(error, REQUEST_ID)} for error in alike},
            *{name for error in alike for name in headers_of(error)},
        )
        for status, alike in by_status.items()
    }


def _response(description: str, schema: dict[str, Any], examples: dict[str, Any], *headers: str) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": description,
        "content": {_JSON: {"schema": schema, "examples": examples}},
    }
    if headers:
        response["headers"] = {name: _HEADERS[name] for name in sorted(headers)}
    return response
