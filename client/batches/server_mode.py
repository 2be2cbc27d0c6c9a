"""Server mode: uploads the input, has the service run it as a batch, and writes the output file when it has ended.

Each step is stored before the next one begins, so that the same command continues after a crash. Lines that an earlier
run has ranked, and lines that are not requests, are uploaded as blank lines: the service ignores these, and its line
numbers are those of the input.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

from client.batch_records import BatchJob, StoredFile
from client.batches.earlier_rows import EarlierRows
from client.batches.input_lines import InputFile
from client.batches.merge import Totals, missing_result, write_output
from client.batches.state import BatchState, StateFile
from client.blocking import Client
from client.calls import Body
from client.documents import UsageError
from client.errors import RequestError, RerankError, StoredFileNotFound, Unauthorized
from client.protocol import RERANK_PATH
from client.uploads import CHUNK_BYTES, Upload


@dataclass(frozen=True, slots=True)
class Work:
    """What an input has to be ranked: its lines, those that earlier runs have ranked, those that are not requests.

    `upload_bytes` is the size of the upload.
    """

    total: int
    before: int
    invalid: int
    upload_bytes: int

    @property
    def left(self) -> int:
        """The number of requests to send."""
        return self.total - self.before - self.invalid


class ServerBatch:
    """One input file, its batch on the service, and its output file."""

    def __init__(self, client: Client, source: InputFile, target: Path, state: BatchState) -> None:
        """Raises UsageError when `target` exists and is not the output of a batch."""
        self.state = state
        self.state_file = StateFile(target)
        self.target = target
        self.ended = False
        """Whether there is nothing to continue: the output file is complete, or the batch failed before it ran."""
        self._client = client
        self._source = source
        self._earlier = EarlierRows(target)

    @property
    def source_bytes(self) -> int:
        """The size of the input. Raises UsageError."""
        return self._source.size

    def close(self) -> None:
        """Close the files."""
        self._earlier.close()

    def examine(self, on_progress: Callable[[int], None]) -> Work:
        """Read the whole input, and find what is left to rank. Raises UsageError."""
        total = before = invalid = size = number = 0
        for line in self._source.lines(on_progress):
            total += 1
            kept = self._earlier.has(line)
            before += kept
            invalid += line.request is None
            # A line break for each line.
            size += line.number - number
            number = line.number
            if line.request is not None and not kept:
                size += len(line.for_upload())
        return Work(total, before, invalid, size)

    def upload(self, work: Work, on_progress: Callable[[int], None]) -> None:
        """Upload what is left to rank, unless an earlier run has done so."""
        if not self.state.file_id:
            upload = Upload(self._source.path.name, Body(self._chunks, work.upload_bytes))
            self.state.file_id = self._client.upload_file(upload, on_progress=on_progress).id
            self.state_file.save(self.state)

    def create(self) -> None:
        """Create the batch of the uploaded file. Raises StoredFileNotFound when the file has expired.

        When the service rejects the batch, nothing is left of it, so that the next command can have other options.
        """
        state = self.state
        try:
            batch = self._client.create_batch(
                StoredFile(state.file_id, self._source.path.name, 0, {}),
                endpoint=RERANK_PATH,
                completion_window=state.completion_window,
                metadata=state.metadata,
                idempotency_key=_idempotency_key(state, self.target),
                **state.options,
            )
        except StoredFileNotFound:
            state.file_id = ""
            self.state_file.save(state)
            raise
        except Unauthorized:
            raise
        except RequestError:
            self._forget([state.file_id])
            raise
        state.batch_id = batch.id
        self.state_file.save(state)

    def follow(self, on_progress: Callable[[BatchJob], None]) -> BatchJob:
        """Wait until the batch has ended. Raises BatchNotFound."""
        return self._client.wait_batch(self.state.batch_id, on_progress=on_progress)

    def download(self, batch: BatchJob) -> Totals | None:
        """Write the output file of a batch that has ended. None when the batch failed before it ran.

        Raises StoredFileNotFound, and UsageError when the input has changed or a file cannot be written.
        """
        if batch.status == "failed" and not (batch.output_file_id or batch.error_file_id):
            return None
        folder = self.target.parent
        try:
            # In the folder of the output file, whose disk has room for results.
            with TemporaryFile(dir=folder) as output, TemporaryFile(dir=folder) as errors:
                for file_id, target in ((batch.output_file_id, output), (batch.error_file_id, errors)):
                    if file_id is not None:
                        self._client.download_file(file_id, target)
                self._require_same_input()
                return write_output(self._source, self.target, output, errors, self._earlier, missing_result(batch))
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error}") from error

    def write_locally(self) -> Totals:
        """Write the output file when no request is left to rank. Raises UsageError."""
        missing = RerankError("the input changed while it was read")
        return write_output(self._source, self.target, BytesIO(), BytesIO(), self._earlier, missing)

    def clean_up(self, batch: BatchJob, *, keep_files: bool) -> None:
        """Forget the batch, and delete its files from the service unless they are kept."""
        self._forget([] if keep_files else [batch.input_file_id, batch.output_file_id, batch.error_file_id])

    def _forget(self, file_ids: Sequence[str | None]) -> None:
        """Delete the state, and these files from the service. A file that cannot be deleted expires there."""
        self.ended = True
        # First: without its files, the batch cannot be continued.
        self.state_file.delete()
        for file_id in file_ids:
            if file_id is not None:
                with suppress(RerankError):
                    self._client.delete_file(file_id)

    def _require_same_input(self) -> None:
        if self.state.digest and self._source.digest() != self.state.digest:
            raise UsageError(
                f"{self._source.path} has changed since it was uploaded; restore it and run the same command, or get "
                f"the results with: python -m client batch resume {self.state.batch_id} ANOTHER.jsonl"
            )

    def _chunks(self) -> Iterator[bytes]:
        """The content of the upload. Raises UsageError."""
        buffer = bytearray()
        number = 0
        for line in self._source.lines():
            buffer += b"\n" * (line.number - number - 1)
            number = line.number
            if line.request is not None and not self._earlier.has(line):
                buffer += line.for_upload()
            buffer += b"\n"
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
        if buffer:
            yield bytes(buffer)


def _idempotency_key(state: BatchState, target: Path) -> str:
    """The same for every attempt to create this batch.

    The uploaded file is a part of it: a new upload, after a batch that has failed, is a new batch.
    """
    parts = [
        state.digest,
        state.options,
        state.completion_window,
        state.metadata,
        str(target.absolute()),
        state.file_id,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
