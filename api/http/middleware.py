"""Middleware for every request: request id, timing, access log, path cleanup and responses to unhandled exceptions.

The access log has method, route, status, milliseconds and request id, and no other text of a client: not even the path,
which may contain anything. A client's own request id is logged only when it is a UUID; otherwise an id of ours is.
"""

import logging
import re
import time
from collections.abc import Callable
from secrets import token_hex

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.logs import request_fields
from shared.tracing import current_traceparent, is_tracing, request_span, trace_id_of

logger = logging.getLogger("api.access")

_SLASHES = re.compile("//+")
_EXTRA_VERSIONS = re.compile(r"^(?P<prefix>/[a-z]+)?(?:/v[0-9])+(?=/v[0-9]/)")
"""All versions but the last in a path like `/v1/v2/rerank`, at the root or below a prefix."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
"""A client's ids that may be logged: any other text could be a secret."""


class RequestContextMiddleware:
    """Sets X-Request-Id and Server-Timing on every response, and responds when the application raises.

    A client's own X-Request-Id is kept when it has 1 to 128 letters, digits or `._:-`.
    """

    def __init__(
        self,
        app: ASGIApp,
        render_exception: Callable[[Request], Response],
        observe: Callable[[str, int, float], None] = lambda path, status, seconds: None,
    ) -> None:
        """`render_exception` makes the response when the application raised before it responded.

        `observe` receives the route's path (empty without a matching route), status and seconds of every response.
        """
        self._app = app
        self._render_exception = render_exception
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        own_id, given_id = token_hex(8), _given_id(scope)
        request_id = given_id or own_id
        scope.setdefault("state", {})["request_id"] = request_id
        request_fields.set({"request": given_id if _UUID.fullmatch(given_id) else own_id})

        response_started = False
        cleaned = _clean_up(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal response_started
            if message["type"] == "http.response.start":
                response_started = True
                elapsed = (time.perf_counter() - started) * 1000
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                timings = [headers.get("Server-Timing"), f"total;dur={elapsed:.3f}"]
                headers["Server-Timing"] = ", ".join(timing for timing in timings if timing)
                route = getattr(cleaned.get("route"), "path", "")
                self._observe(route, message["status"], elapsed / 1000)
                logger.info(
                    "request",
                    extra={
                        "method": scope["method"],
                        "route": route,
                        "status": message["status"],
                        "ms": round(elapsed, 1),
                    },
                )
            await send(message)

        try:
            if is_tracing():
                await self._trace(cleaned, receive, send_with_headers)
            else:
                await self._app(cleaned, receive, send_with_headers)
        except Exception:
            logger.exception("unhandled exception")
            if response_started:
                raise
            await self._render_exception(Request(cleaned))(cleaned, receive, send_with_headers)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request within a span, which is in the caller's trace if there is one."""
        with request_span(scope["method"], _header(scope, b"traceparent")) as current:
            own = current_traceparent()
            request_fields.set({**request_fields.get(), "trace": trace_id_of(own)})

            async def send_traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["traceparent"] = own
                    if route := getattr(scope.get("route"), "path", ""):
                        current.update_name(f"{scope['method']} {route}")
                        current.set_attribute("http.route", route)
                    current.set_attribute("http.request.method", scope["method"])
                    current.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, send_traced)


def clean_path(path: str) -> str:
    """The canonical form of a path: without a trailing slash, doubled slashes, and all but the last of its versions."""
    path = _SLASHES.sub("/", path)
    path = _EXTRA_VERSIONS.sub(lambda match: match["prefix"] or "", path)
    return path.removesuffix("/") if len(path) > 1 else path


def _clean_up(scope: Scope) -> Scope:
    """The request with a canonical path, and with GET for HEAD.

    A wrong base URL yields a trailing slash, doubled slashes or several versions (`/v1/v2/rerank`). Many clients do
    not follow a redirect of a POST. The server drops the body of a response to HEAD.
    """
    path = clean_path(scope["path"])
    if path == scope["path"] and scope["method"] != "HEAD":
        return scope
    # A copy: the server reads the method from its own scope to drop the body.
    return {**scope, "path": path, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}


def _given_id(scope: Scope) -> str:
    """The client's own id of the request, or an empty text."""
    given = _header(scope, b"x-request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else ""


def _header(scope: Scope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)
