"""The parameters of OpenAI's lists: `after`, `limit` and `order`. Reads them, and describes a page."""

from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidRequest

DEFAULT_LIMIT = 20
_MAX_DIGITS = 18
_PARAMETERS = {
    "after": "The `last_id` of the page before.",
    "limit": "The most objects in a page.",
    "purpose": "Only files with this purpose.",
    "order": "`desc`, newest first, or `asc`.",
}


def list_parameters(*more: str) -> dict[str, Any]:
    """The `openapi_extra` of a list with the parameters `after`, `limit` and `more`."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": _PARAMETERS[name],
                "schema": {"type": "integer" if name == "limit" else "string"},
            }
            for name in ("after", "limit", *more)
        ]
    }


def read_number(query: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number from the query. Raises InvalidRequest."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and lowest <= int(text) <= highest):
        raise InvalidRequest(f"{name} must be a number from {lowest} to {highest}", param=name)
    return int(text)


def read_newest_first(query: Mapping[str, str]) -> bool:
    """Whether `order` is desc, the default. Raises InvalidRequest."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc", param="order")
    return order == "desc"


def describe_list(items: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A page of objects with ids."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
