"""Reads `multipart/form-data` uploads: the form fields, and one file whose bytes stream.

Never holds the file: the caller gets its bytes as they arrive, and the next chunk of the body is read when the caller
asks for more. Rejects uploads that are compressed, incomplete or over the limits, and clients that send too slowly.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from starlette.requests import Request

from api.http.content_disposition import DEFAULT_FILENAME, parse_parameters, read_filename
from api.http.request_body import BODY_SECONDS
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut

MAX_FIELDS = 100
MAX_FIELD_BYTES = 65_536
MAX_OVERHEAD_BYTES = 1_048_576
"""The limit of a body without the file's content: its fields, headers and boundaries together."""
MIN_BYTES_PER_SECOND = 1024
RATE_WINDOW_SECONDS = 60.0
"""How much waiting for the client passes between two checks of its speed. The time that the caller takes to store the
file does not count. Each period is checked on its own: what arrived fast before does not allow a standstill later."""
_PARSE_BYTES = 65_536
"""How much is parsed at once. A body full of false boundaries is parsed at 7 MB/s: this much takes about 10 ms, during
which the event loop is blocked."""
_PLAIN_TRANSFER_ENCODINGS = ("7bit", "8bit", "binary")


class MultipartUpload:
    """One upload, read in two steps: `start()` up to the file, `file()` to the end.

    Form fields may come before or after the file, so `fields` is complete only after `file()` has ended. Store the file
    under its final name only then, too: an upload that was cut off raises at its end.
    """

    def __init__(self, request: Request, *, max_file_bytes: int, file_field: str = "file") -> None:
        """`file_field` is the name of the form field that holds the file.

        Raises InvalidRequest when the headers do not announce an uncompressed form, and PayloadTooLarge when
        Content-Length shows that the file is over `max_file_bytes`.
        """
        if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise InvalidRequest("an upload must not have a Content-Encoding", param="Content-Encoding")
        boundary = _read_boundary(request)
        if int(request.headers.get("content-length", "0")) > max_file_bytes + MAX_OVERHEAD_BYTES:
            raise _file_too_large(max_file_bytes, file_field)
        self._form = _Form(max_file_bytes, file_field)
        self._parser = _create_parser(boundary, self._form)
        self._stream = aiter(request.stream())
        self._body_bytes = 0
        self._window_bytes = 0
        self._window_seconds = 0.0

    @property
    def fields(self) -> dict[str, str]:
        """The form fields that have arrived so far, by name."""
        return self._form.fields

    @property
    def filename(self) -> str:
        """The file's name without its folder, 1 to 255 characters; "upload" when the client sent none."""
        return self._form.filename or DEFAULT_FILENAME

    @property
    def file_bytes(self) -> int:
        """How many bytes of the file have arrived so far."""
        return self._form.file_bytes

    async def start(self) -> None:
        """Read until the file begins: its name and the fields before it are then known.

        Raises the errors of `file()`.
        """
        while self._form.filename is None:
            await self._parse_more()

    async def file(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes in chunks of up to 64 KiB as they arrive, then read the fields that follow.

        Ends only when the whole upload has arrived. Raises InvalidRequest when it is malformed, incomplete, has no file
        or several, or has too many or too long fields; PayloadTooLarge; RequestTimedOut when no data arrives for
        BODY_SECONDS, or less than MIN_BYTES_PER_SECOND; and starlette's ClientDisconnect.
        """
        chunks = self._form.file_chunks
        more = True
        while more:
            while chunks:
                yield chunks.popleft()
            more = await self._parse_more()

    async def _parse_more(self) -> bool:
        """Parse the next chunk of the body. Returns False when there is none and the upload is complete."""
        body = await self._receive()
        if body is None:
            self._form.check_complete()
            return False
        for start in range(0, len(body), _PARSE_BYTES):
            if start:
                await asyncio.sleep(0)
            self._parse(body[start : start + _PARSE_BYTES])
        return True

    def _parse(self, chunk: bytes) -> None:
        self._body_bytes += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            if not self._form.has_begun:
                raise InvalidRequest("the body does not begin with the boundary that Content-Type names") from error
            raise InvalidRequest("a boundary or the headers of a part are malformed or too long") from error
        if self._body_bytes - self._form.file_bytes > MAX_OVERHEAD_BYTES:
            raise PayloadTooLarge(f"the upload without its file is over the limit of {MAX_OVERHEAD_BYTES} bytes")

    async def _receive(self) -> bytes | None:
        """Wait for the next chunk of the body, None at its end, and check the client's speed."""
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                chunk = await anext(self._stream, None)
        except TimeoutError:
            raise RequestTimedOut(f"no more body data arrived within {BODY_SECONDS:g} s") from None
        if chunk is None:
            return None
        self._window_bytes += len(chunk)
        self._window_seconds += time.monotonic() - asked_at
        # The stream marks its end with an empty chunk, however long ago the data before it arrived.
        if chunk and self._window_seconds >= RATE_WINDOW_SECONDS:
            if self._window_bytes < MIN_BYTES_PER_SECOND * self._window_seconds:
                raise RequestTimedOut(f"the upload is slower than {MIN_BYTES_PER_SECOND} bytes per second")
            self._window_bytes, self._window_seconds = 0, 0.0
        return chunk


class _Form:
    """What has been parsed so far. The methods that begin with `on_` are the parser's callbacks.

    The parser passes data as a buffer and a range in it, and one header or field in several calls.
    """

    def __init__(self, max_file_bytes: int, file_field: str) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """None until the file begins."""
        self.file_bytes = 0
        self.file_chunks: deque[bytes] = deque()
        """What the caller has not received yet: at most the file's part of one chunk of the body."""
        self.has_begun = False
        self._is_complete = False
        self._max_file_bytes = max_file_bytes
        self._file_field = file_field
        self._headers: dict[str, str] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._field: str | None = None
        """The name of the current part, None while it is the file."""
        self._field_value = bytearray()

    def check_complete(self) -> None:
        """Raise InvalidRequest unless the closing boundary and a file have arrived."""
        if not self._is_complete:
            raise InvalidRequest("the upload is incomplete: the body ends before the closing boundary")
        if self.filename is None:
            raise InvalidRequest(f"the field {self._file_field!r} with the file is missing", param=self._file_field)

    def on_part_begin(self) -> None:
        self.has_begun = True
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += memoryview(data)[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += memoryview(data)[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode(errors="replace")
        self._header_name.clear()
        self._header_value.clear()

    def on_headers_finished(self) -> None:
        disposition, parameters = parse_parameters(self._headers.get("content-disposition", ""))
        name = parameters.get("name")
        if disposition != "form-data" or not name:
            raise InvalidRequest("every part needs the header Content-Disposition: form-data with a name")
        if self._headers.get("content-transfer-encoding", "binary").strip().lower() not in _PLAIN_TRANSFER_ENCODINGS:
            raise InvalidRequest("a part must not have a Content-Transfer-Encoding", param=name)
        filename = read_filename(parameters)
        if name == self._file_field:
            self._begin_file(filename or DEFAULT_FILENAME)
        elif filename is not None:
            raise InvalidRequest(f"only the field {self._file_field!r} may hold a file", param=name)
        else:
            self._begin_field(name)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.file_bytes += end - start
            if self.file_bytes > self._max_file_bytes:
                raise _file_too_large(self._max_file_bytes, self._file_field)
            self.file_chunks.append(data[start:end])
            return
        if len(self._field_value) + end - start > MAX_FIELD_BYTES:
            raise InvalidRequest(f"the field is over the limit of {MAX_FIELD_BYTES} bytes", param=self._field)
        self._field_value += memoryview(data)[start:end]

    def on_part_end(self) -> None:
        if self._field is None:
            return
        try:
            self.fields[self._field] = self._field_value.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"byte {error.start} of the field is not UTF-8", param=self._field) from error
        self._field_value.clear()

    def on_end(self) -> None:
        self._is_complete = True

    def _begin_file(self, filename: str) -> None:
        if self.filename is not None:
            raise InvalidRequest("an upload must have only one file", param=self._file_field)
        self.filename = filename
        self._field = None

    def _begin_field(self, name: str) -> None:
        if name in self.fields:
            raise InvalidRequest("the field is given twice", param=name)
        if len(self.fields) >= MAX_FIELDS:
            raise InvalidRequest(f"an upload must have at most {MAX_FIELDS} fields beside the file", param=name)
        self._field = name


def _read_boundary(request: Request) -> bytes:
    media_type, parameters = parse_parameters(request.headers.get("content-type", ""))
    if media_type != "multipart/form-data":
        raise InvalidRequest("Content-Type must be multipart/form-data", param="Content-Type")
    boundary = parameters.get("boundary")
    if not boundary:
        raise InvalidRequest("Content-Type must name the boundary of the form", param="Content-Type")
    return boundary.encode("latin-1")


def _create_parser(boundary: bytes, form: _Form) -> MultipartParser:
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_end": form.on_end,
            },
        )
    except FormParserError as error:
        raise InvalidRequest("the boundary in Content-Type is too long", param="Content-Type") from error


def _file_too_large(max_file_bytes: int, file_field: str) -> PayloadTooLarge:
    return PayloadTooLarge(f"the file is over the limit of {max_file_bytes} bytes", param=file_field)
