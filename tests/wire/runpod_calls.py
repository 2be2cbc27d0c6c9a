"""The recorded calls of RunPod's API, in examples/runpod, and what is replaced in answers.

A file is a list of calls. `<id>` in a path is the id in the first answer; `until` repeats the call until the answer has
this status.
"""

import json
import re
from pathlib import Path
from typing import Any

from tests.wire.support import mask_variable_fields

FOLDER = Path(__file__).parent / "examples" / "runpod"
_ID = re.compile(r"(job|sync|bulk|sync-bulk)-[0-9a-f]{32}")


def recorded(name: str) -> list[dict[str, Any]]:
    """The calls in the file of that name."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def mask_answer(body: Any) -> Any:
    """The body with `<name>` for what differs between runs: ids, times, and the numbers of health."""
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if "id" in body:
        assert _ID.fullmatch(body["id"]), body["id"]
        body["id"] = f"<{body['id'].rpartition('-')[0]}-id>"
    for name in ("delayTime", "executionTime"):
        if name in body:
            assert type(body[name]) is int
            assert body[name] >= 0
            body[name] = f"<{name}>"
    if {"jobs", "workers"} <= body.keys():
        return {part: dict.fromkeys(_require_counts(numbers), "<number>") for part, numbers in body.items()}
    if "output" in body:
        body["output"] = _mask_output(body["output"])
    if "stream" in body:
        body["stream"] = [{"output": _mask_output(chunk["output"])} for chunk in body["stream"]]
    return body


def _mask_output(output: Any) -> Any:
    return [mask_variable_fields(each) for each in output] if isinstance(output, list) else mask_variable_fields(output)


def _require_counts(numbers: dict[str, Any]) -> dict[str, Any]:
    assert all(type(number) is int and number >= 0 for number in numbers.values()), numbers
    return numbers
