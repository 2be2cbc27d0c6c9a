"""Around every request: an id that goes out with the answer and into the log, and the time it took.

The log has method, path, status and milliseconds: never a key, a query or a document.
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
_VERSIONS = re.compile(r"^(?P<prefix>/[a-z]+)?(?:/v[0-9])+(?=/v[0-9]/)")
"""All but the last one of `/v1/v2/...`, at the root or below a prefix."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestContextMiddleware:
    """Adds X-Request-Id (the caller's own, when it is a plain one), completes Server-Timing, answers for a fault."""

    def __init__(
        self,
        app: ASGIApp,
        render_fault: Callable[[Request], Response],
        observe: Callable[[str, int, float], None] = lambda path, status, seconds: None,
    ) -> None:
        """`render_fault` makes the answer when the application raised instead of answering.

        `observe` is told of every answer: the path of its route, empty when there is none, status and seconds.
        """
        self._app = app
        self._render_fault = render_fault
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        begun = False
        meant = _as_meant(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                elapsed = (time.perf_counter() - started) * 1000
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                parts = [headers.get("Server-Timing"), f"total;dur={elapsed:.3f}"]
                headers["Server-Timing"] = ", ".join(part for part in parts if part)
                self._observe(getattr(meant.get("route"), "path", ""), message["status"], elapsed / 1000)
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
            await self._app(meant, receive, send_with_headers)
        except Exception:
            logger.exception("request %s: a fault", request_id)
            if begun:
                raise
            await self._render_fault(Request(meant))(meant, receive, send_with_headers)


def _as_meant(scope: Scope) -> Scope:
    """The request without what base URLs get wrong: a slash at the end, two in a row, and a version that clients add.

    A redirect would do, but many clients follow none when they POST. A HEAD is a GET whose body the server leaves out.
    """
    path = _SLASHES.sub("/", scope["path"])
    path = _VERSIONS.sub(lambda found: found["prefix"] or "", path)
    if len(path) > 1:
        path = path.removesuffix("/")
    if path == scope["path"] and scope["method"] != "HEAD":
        return scope
    # A copy, for the server looks into its own: to a HEAD it must not send a body.
    return {**scope, "path": path, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}


def _path_as_sent(scope: Scope) -> str:
    """Still percent-encoded: a decoded path could begin a line of its own in the log."""
    return quote(scope.get("raw_path") or scope["path"], safe="/%:@!$&'()*+,;=-._~")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return token_hex(8)
