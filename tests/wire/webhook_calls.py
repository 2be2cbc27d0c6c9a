"""The recorded calls of webhooks and what receivers get, in examples/webhooks.

A file is a list of steps. `call` is a call of the API, with `repeat` until its answer is the recorded one. `received`
is the next request that this receiver gets. `do` is what happens to the latest job. `<job-id>` and similar placeholders
in a step stand for the latest id of that kind.
"""

import asyncio
import json
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infra.local.redis_server import free_port
from tests.receivers import Received, Receiver, Reply
from tests.wire.masks import IDS, mask_json, mask_text
from tests.wire.step_service import StepService

FOLDER = Path(__file__).parent / "examples" / "webhooks"
SECONDS = 8.0
"""How long a step may take."""


def recorded(name: str) -> list[dict[str, Any]]:
    """The steps in the file of that name."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


class WebhookCalls:
    """Makes steps with a service, and with receivers that answer in different ways. A context manager."""

    def __init__(self, service: StepService) -> None:
        self._service = service
        self._receivers = {
            "<receiver>": Receiver(),
            "<receiver-500>": Receiver(lambda _: Reply(500)),
            "<receiver-410>": Receiver(lambda _: Reply(410)),
        }
        self._urls = {"<no-receiver>": f"http://127.0.0.1:{free_port()}/hook"} | {
            name: receiver.url for name, receiver in self._receivers.items()
        }
        self._read = dict.fromkeys(self._receivers, 0)
        self._ids: dict[str, str] = {}
        self._running = ExitStack()

    def __enter__(self) -> "WebhookCalls":
        for receiver in self._receivers.values():
            self._running.enter_context(receiver)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    async def make(self, step: dict[str, Any]) -> dict[str, Any]:
        """What the step says of the outcome, as it is now."""
        if "do" in step:
            await self._do(step["do"])
            return {}
        if "received" in step:
            return self._describe(await self._next_request(step["received"]))
        deadline = time.monotonic() + SECONDS
        while True:
            found = await self._call(step)
            if not step.get("repeat") or found.items() <= step.items() or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.05)

    async def _call(self, step: dict[str, Any]) -> dict[str, Any]:
        method, path = self._fill(step["call"]).split(" ", 1)
        given: dict[str, Any] = {"headers": step.get("headers")}
        if "file" in step:
            given |= {"files": {"file": ("in.jsonl", step["file"])}, "data": {"purpose": "batch"}}
        elif "request" in step:
            given["json"] = json.loads(self._fill(json.dumps(step["request"])))
        response = await self._service.client.request(method, path, **given)
        self._note_ids(response.text)
        answer = self._mask(response.json() if response.content else None)
        if response.status_code == 202 and path.endswith("/redeliver"):
            # The first try may have begun.
            assert answer["tries"] in (0, 1)
            answer["tries"] = "<tries>"
        return {"status": response.status_code, "answer": answer}

    async def _next_request(self, name: str) -> Received:
        receiver, number = self._receivers[name], self._read[name]
        assert await asyncio.to_thread(receiver.wait_for, lambda found: len(found.received) > number, SECONDS), name
        self._read[name] += 1
        return receiver.received[number]

    def _describe(self, request: Received) -> dict[str, Any]:
        headers = request.headers | {"content-length": "<content-length>"}
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 2 * SECONDS
        headers["webhook-timestamp"] = "<webhook-timestamp>"
        headers["webhook-signature"] = re.sub(r"v1,[A-Za-z0-9+/]{43}=", "v1,<signature>", headers["webhook-signature"])
        headers["user-agent"] = re.sub(r"rerankq/\d+\.\d+\.\d+", "rerankq/<version>", headers["user-agent"])
        headers["host"] = re.sub(r":\d+", ":<port>", headers["host"])
        return {
            "headers": {name: mask_text(value) for name, value in headers.items()},
            "body": mask_json(request.event),
        }

    async def _do(self, what: str) -> None:
        match what:
            case "run batches":
                await self._service.run_batches()
            case "score":
                self._service.finish(await self._service.claim())
            case "fail":
                self._service.fail(await self._service.claim())
            case "expire":
                self._service.expire(self._ids["<job-id>"])
            case _:
                raise AssertionError(f"unknown step {what!r}")

    def _fill(self, text: str) -> str:
        """The text with the latest ids and the receivers' URLs."""
        for placeholder, value in (self._urls | self._ids).items():
            text = text.replace(placeholder, value)
        return text

    def _note_ids(self, text: str) -> None:
        for placeholder, pattern in IDS.items():
            if (found := pattern.search(text)) is not None:
                self._ids[placeholder] = found[0]

    def _mask(self, body: Any) -> Any:
        text = json.dumps(body)
        for placeholder, url in self._urls.items():
            text = text.replace(url, placeholder)
        return mask_json(json.loads(text))
