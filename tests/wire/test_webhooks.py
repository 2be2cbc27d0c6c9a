"""Webhooks against a real receiver: calls get the recorded answers, and receivers the recorded headers and bodies."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from api.webhooks.runner import DeliveryRunner, RunnerLimits
from shared.webhooks import WebhookEvent
from tests.wire.step_service import StepService, step_service
from tests.wire.support import DOCUMENT
from tests.wire.webhook_calls import FOLDER, WebhookCalls, recorded

EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.fixture
async def service(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> AsyncIterator[StepService]:
    monkeypatch.setattr("api.background_tasks._CANCEL_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.output.MIN_SEGMENT_SECONDS", 0.02)
    monkeypatch.setattr("api.app.DeliveryRunner", partial(DeliveryRunner, limits=RunnerLimits(poll=0.1)))
    # The receivers listen on loopback, which is refused by default.
    networks = "" if name.startswith("refused-") else "127.0.0.0/8"
    async with step_service(redis_url, tmp_path, webhook_networks=networks) as started:
        yield started


@pytest.mark.parametrize("name", EXAMPLES)
async def test_steps_have_the_recorded_outcome(service: StepService, name: str) -> None:
    with WebhookCalls(service) as calls:
        for step in recorded(name):
            found = await calls.make(step)
            assert found == {field: step.get(field) for field in found}, step


def test_every_operation_is_recorded() -> None:
    documented = {
        _operation(f"{method.upper()} {path}")
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        if "webhooks" in operation["tags"]
    }
    assert documented
    assert {_operation(step["call"]) for name in EXAMPLES for step in recorded(name) if "call" in step} >= documented


def test_every_event_is_recorded() -> None:
    received = [step["body"] for name in EXAMPLES for step in recorded(name) if "received" in step]
    assert {body.get("type") for body in received} >= {*WebhookEvent, "webhook.test"}
    assert {body.get("status") for body in received} >= {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


def _operation(call_line: str) -> tuple[str, ...]:
    """The method, and the path without parameters; `*` for an id in it."""
    method, path = call_line.split(" ", 1)
    return (method, *("*" if part[:1] in ("<", "{") else part for part in path.split("?")[0].split("/")))
