"""Replaces what differs between runs in JSON: ids, times, rates and secrets."""

import json
import re
from typing import Any

_HEX = "[0-9a-f]"
IDS = {
    "<test-id>": re.compile(f"msg_test_{_HEX}{{24}}"),
    "<delivery-id>": re.compile(rf"msg_(?:job-|bulk-|batch_){_HEX}{{32}}_\d+_\d+"),
    "<webhook-id>": re.compile(f"we_{_HEX}{{24}}"),
    "<job-id>": re.compile(f"job-{_HEX}{{32}}"),
    "<bulk-id>": re.compile(f"bulk-{_HEX}{{32}}"),
    "<batch-id>": re.compile(f"batch_{_HEX}{{32}}"),
    "<file-id>": re.compile(f"file-{_HEX}{{32}}"),
}
"""The ids by their placeholder. An id of a delivery contains that of a job."""
_NUMBERS = (
    *("created", "started", "finished", "expires", "estimated_finish", "pairs_per_second"),
    *("created_at", "in_progress_at", "expires_at", "finalizing_at", "cancelling_at"),
    *("completed_at", "failed_at", "expired_at", "cancelled_at"),
    *("last_try", "next_try", "ended", "seconds", "delayTime", "executionTime"),
)
_NUMBER = re.compile(rf'"({"|".join(_NUMBERS)})":\d+(?:\.\d+)?(?=[,}}])')
_TIMESTAMP = re.compile(r'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"')
_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")
_POSITION = re.compile(r"\d{13}-<delivery-id>")


def mask_text(text: str) -> str:
    """Compact JSON, alone or in a longer text, with a placeholder for each value that differs between runs."""
    for placeholder, pattern in IDS.items():
        text = pattern.sub(placeholder, text)
    text = _NUMBER.sub(r'"\1":"<\1>"', text)
    text = _TIMESTAMP.sub('"timestamp":"<timestamp>"', text)
    return _POSITION.sub("<position>", _SECRET.sub("<secret>", text))


def mask_json(body: Any) -> Any:
    """A JSON value with these placeholders."""
    return json.loads(mask_text(json.dumps(body, separators=(",", ":"))))
