"""The sequence of HTTP calls, pauses and retries of each operation on batches, files and jobs of many requests.

Uploads, downloads and waiting survive outages of the service: they are tried again for `patience` seconds after the
first failure.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote

from client.batch_records import BatchJob, ResultsPage, StoredFile
from client.calls import CLEANUP_SECONDS, Call, Caller, Pause, Steps
from client.errors import BatchFailed, JobNotFinished, RequestError, UnexpectedAnswer, WaitTimedOut
from client.protocol import RERANK_PATH, job_path
from client.records import Job, JsonObject, Options, Request
from client.uploads import Upload, multipart

TRANSFER_SECONDS = 120.0
"""How long an upload or a download may make no progress. The service answers an upload when it has stored the file."""
_FIRST_POLL, _LONGEST_POLL = 0.2, 5.0
_POLL_SHARE = 0.05
"""A batch is polled again after this share of the time that it has been followed for."""
_RESULTS_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class BatchTerms:
    """How a batch is created. `endpoint` selects the format of lines; `request_params` are defaults of all requests.

    Only a `webhook` in them is one of the batch itself.
    """

    endpoint: str = RERANK_PATH
    completion_window: str = "24h"
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_params: Mapping[str, Any] = field(default_factory=dict)

    def body(self, file: StoredFile) -> JsonObject:
        """The JSON body."""
        body: JsonObject = {
            "input_file_id": file.id,
            "endpoint": self.endpoint,
            "completion_window": self.completion_window,
        }
        optional = {"metadata": self.metadata, **_split_webhook(self.request_params, "request_params")}
        return body | {name: dict(value) for name, value in optional.items() if value}


class BatchProtocol(Caller):
    """The operations on batches, files and jobs of many requests. All raise RerankError."""

    def has_batches(self, timeout_seconds: float) -> Steps[bool]:
        """Whether the service has the routes of batches."""
        try:
            yield from self._call(Call("GET", "/v1/batches?limit=1"), self._clock() + timeout_seconds)
        except RequestError as error:
            if error.status in (404, 405):
                return False
            raise
        return True

    def upload(
        self, source: Upload, patience: float, on_progress: Callable[[int], None] | None = None
    ) -> Steps[StoredFile]:
        """Upload a file; `on_progress` receives the bytes that were sent. Raises PayloadTooLarge."""
        content_type, body = multipart(source, on_progress)
        headers = {"Content-Type": content_type}
        call = Call("POST", "/v1/files", headers, body, seconds=TRANSFER_SECONDS)
        return StoredFile.read((yield from self._call_patiently(call, patience)).json())

    def download(self, file_id: str, target: BinaryIO, patience: float) -> Steps[None]:
        """Replace the content of `target` by the file's. Raises StoredFileNotFound."""
        call = Call("GET", _file_path(file_id, "/content"), seconds=TRANSFER_SECONDS, target=target)
        yield from self._call_patiently(call, patience)

    def delete_file(self, file_id: str, timeout_seconds: float) -> Steps[None]:
        """Delete a file. Raises StoredFileNotFound or StoredFileInUse."""
        yield from self._call(Call("DELETE", _file_path(file_id)), self._clock() + timeout_seconds)

    def create(
        self, source: Upload | StoredFile, terms: BatchTerms, key: str | None, patience: float
    ) -> Steps[BatchJob]:
        """Create a batch; an Upload is uploaded first, and deleted when the service rejects the batch."""
        file = (yield from self.upload(source, patience)) if isinstance(source, Upload) else source
        # The idempotency key makes a repeated call safe when the first response was lost.
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or uuid.uuid4().hex}
        call = Call("POST", "/v1/batches", headers, json.dumps(terms.body(file)).encode())
        try:
            return BatchJob.read((yield from self._call_patiently(call, patience)).json())
        except RequestError:
            if isinstance(source, Upload):
                yield from self._call_once(Call("DELETE", _file_path(file.id), seconds=CLEANUP_SECONDS))
            raise

    def batch(self, batch_id: str, timeout_seconds: float) -> Steps[BatchJob]:
        """The batch's current status. Raises BatchNotFound."""
        answer = yield from self._call(Call("GET", _batch_path(batch_id)), self._clock() + timeout_seconds)
        return BatchJob.read(answer.json())

    def batches(self, limit: int, timeout_seconds: float) -> Steps[list[BatchJob]]:
        """The newest batches, up to `limit` (1 to 100)."""
        call = Call("GET", f"/v1/batches?limit={limit}")
        data = (yield from self._call(call, self._clock() + timeout_seconds)).json()
        if not isinstance(data, dict) or not isinstance(data.get("data"), list):
            raise UnexpectedAnswer(f"not a list of batches: {str(data)[:200]}")
        return [BatchJob.read(batch) for batch in data["data"]]

    def cancel(self, batch_id: str, timeout_seconds: float) -> Steps[BatchJob]:
        """Ask for the cancellation of a batch. One that has ended is unchanged. Raises BatchNotFound."""
        answer = yield from self._call(Call("POST", _batch_path(batch_id, "/cancel")), self._clock() + timeout_seconds)
        return BatchJob.read(answer.json())

    def wait(
        self,
        batch_id: str,
        timeout_seconds: float | None,
        patience: float,
        on_progress: Callable[[BatchJob], None] | None = None,
    ) -> Steps[BatchJob]:
        """Wait until the batch has a final status, at most `timeout_seconds`; `on_progress` is called with each status.

        Raises WaitTimedOut, BatchNotFound.
        """
        started = self._clock()
        while True:
            batch = BatchJob.read(
                (yield from self._call_patiently(Call("GET", _batch_path(batch_id)), patience)).json()
            )
            if batch.final:
                return batch
            if on_progress is not None:
                on_progress(batch)
            passed = self._clock() - started
            pause = min(max(passed * _POLL_SHARE, _FIRST_POLL), _LONGEST_POLL)
            if timeout_seconds is not None:
                if passed >= timeout_seconds:
                    raise WaitTimedOut(f"the batch {batch_id} is {batch.status}; it continues", job_id=batch_id)
                pause = min(pause, timeout_seconds - passed)
            yield Pause(pause)

    def results(self, batch_id: str, output: BinaryIO, errors: BinaryIO, patience: float) -> Steps[BatchJob]:
        """Download the result files of a batch that has ended; a file that the batch lacks is left empty.

        Raises JobNotFinished, BatchFailed for a batch without results, BatchNotFound and StoredFileNotFound.
        """
        batch = BatchJob.read((yield from self._call_patiently(Call("GET", _batch_path(batch_id)), patience)).json())
        if not batch.final:
            raise JobNotFinished(f"the batch {batch_id} is {batch.status}", job_id=batch_id)
        if batch.status == "failed" and not (batch.output_file_id or batch.error_file_id):
            reason = batch.errors[0].message if batch.errors else "the service gave no reason"
            raise BatchFailed(f"the batch {batch_id} failed: {reason}", job_id=batch_id)
        for file_id, target in ((batch.output_file_id, output), (batch.error_file_id, errors)):
            if file_id is not None:
                yield from self.download(file_id, target, patience)
        return batch

    def submit_many(self, body: JsonObject, key: str | None, timeout_seconds: float) -> Steps[Job]:
        """Create a job of many requests from its JSON body."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or uuid.uuid4().hex}
        call = Call("POST", "/v1/jobs", headers, json.dumps(body).encode())
        return Job.read((yield from self._call(call, self._clock() + timeout_seconds)).json())

    def results_page(self, job_id: str, after: int, limit: int, timeout_seconds: float) -> Steps[ResultsPage]:
        """Up to `limit` results (1 to 1000) behind the first `after` ones. Raises JobNotFound."""
        call = Call("GET", job_path(job_id, f"/results?after={after}&limit={limit}"))
        return ResultsPage.read((yield from self._call(call, self._clock() + timeout_seconds)).json())

    def next_results(self, job_id: str, after: int, limit: int, patience: float) -> Steps[ResultsPage]:
        """The next page that has results, or the empty last one. Waits as long as the job runs."""
        call = Call("GET", job_path(job_id, f"/results?after={after}&limit={limit}"))
        while True:
            page = ResultsPage.read((yield from self._call_patiently(call, patience)).json())
            if page.results or page.next is None:
                return page
            yield Pause(_RESULTS_PAUSE)


def many_requests(
    requests: Sequence[Request | Mapping[str, Any]],
    *,
    deadline: str | float,
    wake: str,
    metadata: Mapping[str, str],
    defaults: Options,
) -> JsonObject:
    """The JSON body of a job of many requests. A `webhook` in `defaults` is one of the job itself."""
    body: JsonObject = {"requests": [_fields(request) for request in requests], "deadline": deadline, "wake": wake}
    optional = {"metadata": metadata, **_split_webhook(defaults, "defaults")}
    return body | {name: dict(value) for name, value in optional.items() if value}


def _split_webhook(options: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    """The options under this name, and their webhook beside them."""
    rest = dict(options)
    return {"webhook": rest.pop("webhook", {}), name: rest}


def _fields(request: Request | Mapping[str, Any]) -> JsonObject:
    if not isinstance(request, Request):
        return dict(request)
    return request.body() | ({} if request.custom_id is None else {"custom_id": request.custom_id})


def _batch_path(batch_id: str, suffix: str = "") -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}{suffix}"


def _file_path(file_id: str, suffix: str = "") -> str:
    return f"/v1/files/{quote(file_id, safe='')}{suffix}"
