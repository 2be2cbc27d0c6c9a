import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.http.middleware import RequestContextMiddleware
from tests.api.support import http
from tests.logs import LogLines


async def respond(request: Request) -> Response:
    headers = {"Server-Timing": "queue;dur=1"} if request.query_params else {}
    return JSONResponse({"request_id": request.state.request_id}, headers=headers)


def render_exception(request: Request) -> Response:
    return JSONResponse({"error": request.state.request_id}, 500)


@pytest.fixture
def app() -> RequestContextMiddleware:
    routes = [Route("/{path:path}", respond, methods=["GET", "POST"])]
    return RequestContextMiddleware(Starlette(routes=routes), render_exception)


async def get(app: Any, path: str = "/", **headers: str) -> Any:
    async with http(app) as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize("given", ["mine-1", "a.b:c_d", "x" * 128])
async def test_request_id_of_the_client_is_kept(app: RequestContextMiddleware, given: str) -> None:
    response = await get(app, **{"X-Request-Id": given})
    assert response.headers["x-request-id"] == given
    assert response.json() == {"request_id": given}


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "a\tb", "<script>"])
async def test_malformed_request_id_is_replaced(app: RequestContextMiddleware, given: str) -> None:
    response = await get(app, **{"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])


async def test_every_request_without_an_id_gets_a_new_one(app: RequestContextMiddleware) -> None:
    ids = {(await get(app)).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


async def test_total_time_is_appended_to_server_timing(app: RequestContextMiddleware) -> None:
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", (await get(app)).headers["server-timing"])
    assert re.fullmatch(r"queue;dur=1, total;dur=\d+\.\d{3}", (await get(app, "/?x=1")).headers["server-timing"])


async def test_route_status_and_seconds_of_every_response_are_observed() -> None:
    observed: list[tuple[str, int, float]] = []
    app = FastAPI()
    app.add_api_route("/v1/jobs/{job_id}", lambda job_id: {})
    middleware = RequestContextMiddleware(app, render_exception, lambda *values: observed.append(values))
    for path in ("/v1/jobs/job-1", "/nowhere"):
        await get(middleware, path)
    assert [(path, status) for path, status, _ in observed] == [("/v1/jobs/{job_id}", 200), ("", 404)]
    assert all(0 < seconds < 5 for *_, seconds in observed)


async def test_access_log_has_no_query_string_body_or_key(app: RequestContextMiddleware, logged: LogLines) -> None:
    async with http(app) as client:
        await client.post(
            "/v1/rerank?secret=1",
            content=b"secret document",
            headers={"Authorization": "Bearer secret", "X-Request-Id": "mine-1"},
        )
    fields = logged.of("api.access")[0]
    assert fields | {"ms": 0, "request": "", "time": ""} == {
        "time": "",
        "level": "info",
        "logger": "api.access",
        "event": "request",
        "request": "",
        "method": "POST",
        "route": "/{path:path}",
        "status": 200,
        "ms": 0,
    }


async def test_access_log_has_the_route_and_not_the_path(logged: LogLines) -> None:
    """A path may contain anything: a secret, or a line break that forges a line."""
    app = FastAPI()
    app.add_api_route("/v1/jobs/{job_id}", lambda job_id: {})
    for path in ("/v1/jobs/secret", "/secret%0A2026-01-01 INFO api.access: GET /forged 200"):
        await get(RequestContextMiddleware(app, render_exception), path)
    found, not_found = logged.of("api.access")
    assert (found["route"], "route" in not_found) == ("/v1/jobs/{job_id}", False)
    assert "secret" not in str([found, not_found])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("0b9bd6f0-6d3c-4c2c-9d3e-2f0a5a0d7c11", "0b9bd6f0-6d3c-4c2c-9d3e-2f0a5a0d7c11"),
        ("sk-secret-1", None),
        ("0123456789abcdef", None),
    ],
)
async def test_a_request_id_is_logged_when_it_can_only_be_an_id(
    app: RequestContextMiddleware, logged: LogLines, given: str, shown: str | None
) -> None:
    async with http(app) as client:
        response = await client.get("/", headers={"X-Request-Id": given})
    assert response.headers["X-Request-Id"] == given
    (line,) = logged.of("api.access")
    assert line["request"] == shown or (shown is None and re.fullmatch("[0-9a-f]{16}", line["request"]))
    assert (given in str(line)) == (shown is not None)


async def test_other_scopes_pass_unchanged() -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def channel(*_: Any) -> Any:
        return None

    scope = {"type": "lifespan"}
    await RequestContextMiddleware(inner, render_exception)(scope, channel, channel)
    assert seen == [({"type": "lifespan"}, channel, channel)]


async def test_head_gets_the_headers_of_get(app: RequestContextMiddleware, logged: LogLines) -> None:
    async with http(app) as client:
        head, get_ = await client.head("/"), await client.get("/")
    assert (head.status_code, head.headers["content-length"]) == (200, get_.headers["content-length"])
    assert [line["method"] for line in logged.of("api.access")] == ["HEAD", "GET"]
