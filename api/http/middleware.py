"""Middleware for every request: request id, timing, access log, path cleanup and responses to unhandled exceptions.

The access log has method, path, status, milliseconds and request id; never an API key, a query or a document.
"""

import logging
import re
import time
from collections.abc import Callable
from secrets import token_hex
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("api.access")

_SLASHES = re.compile("//+")
_EXTRA_VERSIONS = re.compile(r"^(?P<prefix>/[a-z]+)?(?:/v[0-9])+(?=/v[0-9]/)")
"""All versions but the last in a path like `/v1/v2/rerank`, at the root or below a prefix."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


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
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

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
                self._observe(getattr(cleaned.get("route"), "path", ""), message["status"], elapsed / 1000)
                logger.info(
                    "%s %s %d %.1f ms %s",
                    scope["method"],
                    _path_as_sent(scope),
                    message["status"],
                    elapsed,
                    request_id,
                )
            await send(message)

        try:
            await self._app(cleaned, receive, send_with_headers)
        except Exception:
            logger.exception("request %s: unhandled exception", request_id)
            if response_started:
                raise
            await self._render_exception(Request(cleaned))(cleaned, receive, send_with_headers)


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


def _path_as_sent(scope: Scope) -> str:
    """Percent-encoded: a decoded path could contain line breaks and forge log lines."""
    return quote(scope.get("raw_path") or scope["path"], safe="/%:@!$&'()*+,;=-._~")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return token_hex(8)
