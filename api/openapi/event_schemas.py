"""What the OpenAPI document says of the events of jobs."""

from typing import Any

EXAMPLE_EVENTS = """\
event: progress
data: {"status":"running","requests_total":1,"requests_done":0,"pairs_total":3,"pairs_done":0,"requests_failed":0}

: waiting

event: result
id: 1
data: {"index":0,"custom_id":"first","result":{"id":"bulk-2f8e6d4c0b1a49387f6e5d4c3b2a1908.1"}}

event: progress
data: {"status":"succeeded","requests_total":1,"requests_done":1,"pairs_total":3,"pairs_done":3,"requests_failed":0}

event: end
data: {"id":"bulk-2f8e6d4c0b1a49387f6e5d4c3b2a1908","object":"job","status":"succeeded"}

"""
EVENT_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last result that the reader has.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,12}$"},
    },
    {
        "name": "results",
        "in": "query",
        "description": "`false` leaves out the results.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N` ends the stream after N seconds.",
        "schema": {"type": "string"},
    },
]
