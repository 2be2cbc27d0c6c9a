import logging
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


async def test_access_log_has_no_query_string_body_or_key(
    app: RequestContextMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="api.access"):
        async with http(app) as client:
            await client.post(
                "/v1/rerank?secret=1",
                content=b"secret document",
                headers={"Authorization": "Bearer secret", "X-Request-Id": "mine-1"},
            )
    (record,) = [record for record in caplog.records if record.name == "api.access"]
    assert re.fullmatch(r"POST /v1/rerank 200 \d+\.\d ms mine-1", record.getMessage())


async def test_path_cannot_forge_log_lines(app: RequestContextMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="api.access"):
        await get(app, "/x%0A2026-01-01 INFO api.access: GET /forged 200")
    messages = [record.getMessage() for record in caplog.records if record.name == "api.access"]
    assert len(messages) == 1
    assert "\n" not in messages[0]


async def test_other_scopes_pass_unchanged() -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def channel(*_: Any) -> Any:
        return None

    scope = {"type": "lifespan"}
    await RequestContextMiddleware(inner, render_exception)(scope, channel, channel)
    assert seen == [({"type": "lifespan"}, channel, channel)]


async def test_head_gets_the_headers_of_get(app: RequestContextMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with http(app) as client:
            head, get_ = await client.head("/"), await client.get("/")
    assert (head.status_code, head.headers["content-length"]) == (200, get_.headers["content-length"])
    assert "HEAD / 200" in caplog.text
