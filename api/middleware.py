"""Around every request: an id that goes out with the answer and into the log, and the time it took.

The log has method, path, status and milliseconds: never a key, a query or a document.
"""

import logging
import re
import time
from secrets import token_hex

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("api.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestEnvelope:
    """Adds X-Request-Id (the caller's own, when it is a plain one) and completes Server-Timing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                elapsed = (time.perf_counter() - started) * 1000
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                parts = [headers.get("Server-Timing"), f"total;dur={elapsed:.3f}"]
                headers["Server-Timing"] = ", ".join(part for part in parts if part)
                logger.info(
                    "%s %s %d %.1f ms %s",
                    scope["method"],
                    scope["path"],
                    message["status"],
                    elapsed,
                    request_id,
                )
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return token_hex(8)
