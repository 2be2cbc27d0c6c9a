"""Reads server-sent events: those of a whole answer, and those of a stream as they arrive."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

Event = tuple[str, str | None, dict[str, Any]]
"""The name, id and data of an event."""


def events_of(text: str) -> list[Event]:
    """The events of a whole answer. Comments are left out."""
    return [event for block in text.split("\n\n") if (event := _event(block.splitlines())) is not None]


async def arriving(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream, as they arrive."""
    lines: list[str] = []
    async for line in response.aiter_lines():
        if line:
            lines.append(line)
        elif (event := _event(lines)) is not None:
            lines = []
            yield event


def _event(lines: list[str]) -> Event | None:
    fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
    return (fields["event"], fields.get("id"), json.loads(fields["data"])) if fields else None
