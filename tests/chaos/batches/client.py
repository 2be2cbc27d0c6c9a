"""Uploads files and runs batches over HTTP, through any API process of the cluster that answers."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from tests.chaos.cases import Case

_CALL_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_TRIES = 200


class BatchClientError(Exception):
    """A call failed, or no API process has answered it for a long time."""


class BatchClient:
    """`sleep` is called between the tries of a call, and may raise."""

    def __init__(self, urls: Sequence[str], sleep: Callable[[float], None]) -> None:
        self._urls = list(urls)
        self._sleep = sleep

    def upload(self, cases: Sequence[Case]) -> str:
        """Upload a file with one line for each case. Returns the file's id."""
        lines = [json.dumps(_make_request(case)) for case in cases]
        content = "\n".join(lines).encode()
        response = self._call("POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", content)})
        return str(response.json()["id"])

    def create(self, file_id: str) -> str:
        """Create a batch. Returns its id."""
        body = {"input_file_id": file_id, "endpoint": "/v1/rerank", "completion_window": "24h"}
        return str(self._call("POST", "/v1/batches", json=body).json()["id"])

    def read(self, batch_id: str) -> dict[str, Any]:
        """The batch as the API describes it."""
        described: dict[str, Any] = self._call("GET", f"/v1/batches/{batch_id}").json()
        return described

    def rows(self, file_id: str) -> list[dict[str, Any]]:
        """The rows of a result file."""
        text = self._call("GET", f"/v1/files/{file_id}/content").text
        return [json.loads(line) for line in text.splitlines()]

    def delete(self, file_id: str) -> None:
        """Delete a file."""
        self._call("DELETE", f"/v1/files/{file_id}")

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Raises BatchClientError."""
        failure = ""
        with httpx.Client(timeout=_CALL_SECONDS) as client:
            for number in range(_TRIES):
                url = self._urls[number % len(self._urls)]
                try:
                    response = client.request(method, f"{url}{path}", **options)
                except httpx.TransportError as error:
                    failure = repr(error)
                else:
                    if response.status_code == 200:
                        return response
                    failure = f"{response.status_code} {response.text[:200]}"
                    if response.status_code != 503:
                        break
                self._sleep(_PAUSE_SECONDS)
        raise BatchClientError(f"{method} {path}: {failure}")


def custom_id(case: Case) -> str:
    """The custom_id of a case's line."""
    return f"line-{case.number}"


def _make_request(case: Case) -> dict[str, Any]:
    return {"custom_id": custom_id(case), "method": "POST", "url": "/v1/rerank", "body": case.body}
