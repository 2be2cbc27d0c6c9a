"""The service under test, in a stack of its own: starts it, and uploads, runs and checks batches over HTTP.

Its settings are those that it ships with. Every wait ends at the deadline of the case.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from bench import servers
from bench.batch.inputs import Shape, check_rows
from bench.batch.sampling import Sampler
from bench.generator import MeasurementFailed
from infra.local.stack import Options, Stack

LEXICAL = "lexical"
BLOCK_BYTES = 1 << 20
_BOUNDARY = "rerankq-bench-boundary"
_POLL_SECONDS = 0.1
_TELL_SECONDS = 15.0
_FINAL = ("completed", "failed", "cancelled", "expired")


class Deadline:
    """The end of a case's time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self, at_most: float = float("inf")) -> float:
        """The seconds that are left, at most `at_most`. Raises MeasurementFailed when there are none."""
        if (left := self._at - time.monotonic()) <= 0:
            raise MeasurementFailed(f"not ended within {self._seconds:g} s")
        return min(left, at_most)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """A completed batch. `seconds`: from its creation until it was completed, the start of the runner included.

    `pairs_per_second` is the service's own figure, from the end of the validation to the end. `samples` has the seconds
    since the creation and the pairs done, whenever those changed.
    """

    seconds: float
    pairs_per_second: float
    samples: list[tuple[float, int]]

    def rate_from_first_row(self) -> float | None:
        """Pairs per second from the first to the last row; None when they came in one sample.

        Too high for an engine that scores many lines at once: the others are half done when the first one ends.
        """
        rows = [sample for sample in self.samples if sample[1]]
        if len(rows) < 2:
            return None
        (began, first), (ended, last) = rows[0], rows[-1]
        return (last - first) / (ended - began)


class Service:
    """A ready service. `tell` prints a line of progress."""

    def __init__(self, stack: Stack, sampler: Sampler, deadline: Deadline, tell: Callable[[str], None]) -> None:
        self.stack = stack
        self.sampler = sampler
        self.deadline = deadline
        self._tell = tell

    def upload_file(self, path: Path) -> str:
        """Upload an input. Returns the file's id."""
        with path.open("rb") as file:
            return self.upload(path.stat().st_size, iter(lambda: file.read(BLOCK_BYTES), b""))

    def upload(self, size: int, blocks: Iterable[bytes]) -> str:
        """Upload blocks of `size` bytes together, as multipart/form-data. Returns the file's id."""
        part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="'
        head = f'{part}purpose"\r\n\r\nbatch\r\n{part}file"; filename="in.jsonl"\r\n\r\n'.encode()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        connection = self.connect()
        try:
            connection.request("POST", "/v1/files", itertools.chain([head], blocks, [tail]), headers)
            response = connection.getresponse()
            file = _json("POST /v1/files", response.status, response.read())
        finally:
            connection.close()
        if file["bytes"] != size:
            raise MeasurementFailed(f"the uploaded file has {file['bytes']} bytes, not {size}")
        return str(file["id"])

    def create_batch(self, file_id: str) -> str:
        """Create a batch of an uploaded file. Returns its id."""
        body = {"input_file_id": file_id, "endpoint": "/v1/rerank", "completion_window": "24h"}
        return str(_json("POST /v1/batches", *servers.post(self.stack.port, "/v1/batches", json.dumps(body)))["id"])

    def batch(self, batch_id: str) -> Any:
        """The batch object. Raises StackError when a process has ended, and MeasurementFailed after the deadline."""
        self.deadline.left()
        self.stack.check()
        path = f"/v1/batches/{batch_id}"
        return _json(f"GET {path}", *servers.get(self.stack.port, path))

    def cancel(self, batch_id: str) -> None:
        path = f"/v1/batches/{batch_id}/cancel"
        _json(f"POST {path}", *servers.post(self.stack.port, path, ""))

    def run_batch(self, file_id: str, shape: Shape) -> BatchOutcome:
        """Run a batch to its end and check its rows. Raises MeasurementFailed when one is missing or wrong."""
        began = told = time.perf_counter()
        batch_id = self.create_batch(file_id)
        samples = [(0.0, 0)]
        while (batch := self.batch(batch_id))["status"] not in _FINAL:
            now, pairs = time.perf_counter(), batch["progress"]["pairs_done"]
            if pairs != samples[-1][1]:
                samples.append((now - began, pairs))
            if now - told > _TELL_SECONDS:
                told = now
                self._tell(f"{batch['status']}, {pairs:,} pairs done")
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - began
        if samples[-1][1] != shape.pairs:
            samples.append((seconds, shape.pairs))
        if batch["status"] != "completed" or batch["request_counts"] != _all_completed(shape):
            counts = json.dumps([batch["status"], batch["request_counts"], batch["errors"]])
            raise MeasurementFailed(f"the batch is not complete: {counts}\n{self.stack.child('api').last_lines()}")
        self._check_output(batch["output_file_id"], shape)
        return BatchOutcome(seconds, batch["progress"]["pairs_per_second"], samples)

    def connect(self) -> HTTPConnection:
        """A new connection to the API, whose timeout ends with the case. The caller closes it."""
        return HTTPConnection("127.0.0.1", self.stack.port, timeout=self.deadline.left())

    def _check_output(self, file_id: str, shape: Shape) -> None:
        connection = self.connect()
        try:
            connection.request("GET", f"/v1/files/{file_id}/content")
            response = connection.getresponse()
            if response.status != 200:
                raise MeasurementFailed(f"the output cannot be read: status {response.status}")
            check_rows(self._until_deadline(response), shape)
        finally:
            connection.close()

    def _until_deadline(self, rows: Iterable[bytes]) -> Iterator[bytes]:
        for row in rows:
            self.deadline.left()
            yield row


def _all_completed(shape: Shape) -> dict[str, int]:
    return {"total": shape.lines, "completed": shape.lines, "failed": 0}


def _json(what: str, status: int, body: bytes) -> Any:
    if status != 200:
        raise MeasurementFailed(f"{what}: status {status}: {body[:500]!r}")
    return json.loads(body)


@contextmanager
def running(options: Options, deadline: Deadline, tell: Callable[[str], None]) -> Iterator[Service]:
    """Start the service and wait until it is ready. Stops it, and deletes its files, afterwards. Raises StackError."""
    with Stack(options) as stack:
        stack.start_redis()
        stack.start_service()
        stack.wait_ready(deadline.left(servers.START_SECONDS))
        with Sampler(stack.child("api").pid, stack.redis_url) as sampler:
            yield Service(stack, sampler, deadline, tell)


def lexical(folder: Path, delay_seconds: float = 0.0, workers: int = 1, **variables: str) -> Options:
    """The lexical engine, which takes `delay_seconds` more for each shard. `variables` are added to the environment."""
    path = folder / "models.yaml"
    entry = {"name": LEXICAL, "engine": "lexical", "engine_args": {"delay_seconds": delay_seconds}}
    path.write_text(yaml.safe_dump({"models": [entry]}))
    environment = {"RERANKQ_MODELS_FILE": str(path), "RERANKQ_LOG_LEVEL": "WARNING", **variables}
    return Options(port=0, workers=workers, environment=environment)
