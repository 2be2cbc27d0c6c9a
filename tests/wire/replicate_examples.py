"""The recorded answers below /replicate, in examples/replicate, and what is replaced in answers."""

import json
import re
from pathlib import Path
from typing import Any

from tests.wire.async_jobs import RFC_3339
from tests.wire.support import mask_variable_fields

FOLDER = Path(__file__).parent / "examples" / "replicate"


def recorded(name: str) -> dict[str, Any]:
    """The file of that name."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def mask_prediction(body: dict[str, Any]) -> dict[str, Any]:
    """The body with `<name>` for what differs between runs: ids, addresses, times and durations."""
    job_id = body.get("id")
    for name in ("created_at", "started_at", "completed_at"):
        if body.get(name) is not None:
            assert RFC_3339.fullmatch(body[name]), body[name]
            body[name] = f"<{name}>"
    for name in body.get("metrics", {}):
        assert 0 <= body["metrics"][name] < 60
        body["metrics"][name] = f"<{name}>"
    if isinstance(body.get("output"), dict):
        mask_variable_fields(body["output"])
    text = re.sub(r'"http://[^/"]+/', '"<host>/', json.dumps(body))
    masked: dict[str, Any] = json.loads(text.replace(job_id, "<id>") if job_id else text)
    return masked
