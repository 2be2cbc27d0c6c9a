"""Builds JSON responses."""

from typing import Any

import pydantic_core
from starlette.responses import Response


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as compact JSON in UTF-8."""
    return Response(pydantic_core.to_json(content), status, headers, media_type="application/json")
