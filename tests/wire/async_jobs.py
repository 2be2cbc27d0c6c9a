"""The recorded answers of Bifrost's asynchronous door, in examples/async, and what is replaced in answers."""

import json
import re
from pathlib import Path
from typing import Any

from tests.wire.support import mask_variable_fields

FOLDER = Path(__file__).parent / "examples" / "async"
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def recorded(name: str) -> dict[str, Any]:
    """The file of that name."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def mask_job(body: dict[str, Any], job_id: str = "") -> dict[str, Any]:
    """The body with `<name>` for what differs between runs: ids, times and durations."""
    for name in ("created_at", "completed_at", "expires_at"):
        if name in body:
            assert RFC_3339.fullmatch(body[name]), body[name]
            body[name] = f"<{name}>"
    mask_variable_fields(body)
    mask_variable_fields(body.get("result"))
    masked: dict[str, Any] = json.loads(json.dumps(body).replace(job_id, "<id>")) if job_id else body
    return masked
