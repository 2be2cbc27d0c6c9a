"""Reads the body of run and runsync: the input, and what the job's policy and webhook ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest
from shared.ledger.submission import JobOptions
from shared.webhooks import WebhookForm, WebhookTarget

MAX_POLICY_MS = 7 * 86_400_000
"""The longest time that RunPod's policies accept."""


@dataclass(frozen=True, slots=True)
class Call:
    """The body of run and runsync. `input` is unread. `low_priority`: the job starts no workers."""

    input: Any
    options: JobOptions
    low_priority: bool


def read_call(body: Mapping[str, Any]) -> Call:
    """Raises InvalidRequest, which names the field. `s3Config` and unknown fields are ignored."""
    if body.get("input") is None:
        raise InvalidRequest("input is required", param="input")
    policy = body.get("policy")
    if policy is None:
        policy = {}
    if not isinstance(policy, dict):
        raise InvalidRequest("policy must be an object", param="policy")
    low_priority = policy.get("lowPriority")
    if not isinstance(low_priority, bool | None):
        raise InvalidRequest("policy.lowPriority must be true or false", param="policy.lowPriority")
    options = JobOptions(
        webhook=_read_webhook(body.get("webhook")),
        execution_seconds=_read_seconds(policy, "executionTimeout"),
        kept_seconds=_read_seconds(policy, "ttl"),
    )
    return Call(body["input"], options, bool(low_priority))


def _read_seconds(policy: Mapping[str, Any], name: str) -> float | None:
    """The field, in milliseconds, as seconds."""
    value = policy.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_POLICY_MS:
        raise InvalidRequest(
            f"policy.{name} must be a whole number of milliseconds from 1 to {MAX_POLICY_MS}", param=f"policy.{name}"
        )
    return value / 1000


def _read_webhook(value: Any) -> WebhookTarget | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidRequest("webhook must be a URL", param="webhook")
    return WebhookTarget(value, (), None, WebhookForm.RUNPOD)
