import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

import api.http.request_body
from api.http.request_body import read_json_object
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut

LIMIT = 100


class Client:
    """Sends a body in chunks, then keeps the connection open unless it `disconnects`."""

    def __init__(
        self,
        *chunks: bytes,
        disconnects: bool = False,
        content_length: int | None = None,
        encoding: str | None = None,
        sends_all: bool = True,
    ) -> None:
        self._chunks = list(chunks)
        self._disconnects = disconnects
        self._sends_all = sends_all
        self.chunks_read = 0
        headers = [] if content_length is None else [(b"content-length", str(content_length).encode())]
        headers += [] if encoding is None else [(b"content-encoding", encoding.encode())]
        self.request = Request({"type": "http", "method": "POST", "headers": headers}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        if self.chunks_read < len(self._chunks):
            chunk = self._chunks[self.chunks_read]
            self.chunks_read += 1
            return {"type": "http.request", "body": chunk, "more_body": not self._is_complete()}
        if not self._disconnects:
            await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    def _is_complete(self) -> bool:
        return self._sends_all and self.chunks_read == len(self._chunks)


@pytest.mark.parametrize("chunks", [[b'{"a": [1, "\xc3\xbc"]}'], [b'{"a": ', b"", b'[1, "\xc3', b'\xbc"]}']])
async def test_body_is_read_in_one_chunk_or_many(chunks: Sequence[bytes]) -> None:
    assert await read_json_object(Client(*chunks).request, LIMIT) == {"a": [1, "ü"]}


async def test_byte_order_mark_is_ignored() -> None:
    assert await read_json_object(Client(b"\xef\xbb\xbf{}").request, LIMIT) == {}


@pytest.mark.parametrize("encoding", ["br", "identity, gzip"])
async def test_unknown_content_encoding_is_rejected(encoding: str) -> None:
    client = Client(b"{}", encoding=encoding)
    with pytest.raises(InvalidRequest, match="Content-Encoding"):
        await read_json_object(client.request, LIMIT)
    assert await read_json_object(Client(b"{}", encoding="Identity").request, LIMIT) == {}


async def test_body_that_drips_in_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.request_body, "WHOLE_BODY_SECONDS", 0.1)
    client = Client(b'{"a":', b"", sends_all=False)
    with pytest.raises(RequestTimedOut, match=r"the body did not arrive within 0\.1 s"):
        await read_json_object(client.request, LIMIT)


async def test_stalled_body_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.request_body, "BODY_SECONDS", 0.1)
    client = Client(b'{"a":', b"", sends_all=False)
    with pytest.raises(RequestTimedOut):
        await read_json_object(client.request, LIMIT)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"3", b"null"])
async def test_json_other_than_an_object_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        await read_json_object(Client(body).request, LIMIT)


async def test_lone_surrogate_is_replaced_unless_the_body_has_too_many_escapes() -> None:
    lone_surrogate = b'{"a": "%s\\ud83d"}'
    assert await read_json_object(Client(lone_surrogate % b"").request, LIMIT) == {"a": "\ufffd"}
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        await read_json_object(Client(lone_surrogate % (b"\\n" * 200_000)).request, 10**6)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"\xff",
        b'{"a": "\\ud8"}',
        b'{"a":' + b"[" * 90,
    ],
)
async def test_invalid_json_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        await read_json_object(Client(body).request, LIMIT)


async def test_deep_nesting_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        await read_json_object(Client(b"[" * 100_000).request, 10**6)


async def test_body_of_exactly_the_limit_is_accepted() -> None:
    body = b"{" + b" " * (LIMIT - 2) + b"}"
    assert await read_json_object(Client(body, content_length=LIMIT).request, LIMIT) == {}


async def test_too_large_content_length_is_rejected_before_the_body_is_read() -> None:
    client = Client(b"{}", content_length=LIMIT + 1)
    with pytest.raises(PayloadTooLarge, match="over the limit of 100 bytes"):
        await read_json_object(client.request, LIMIT)
    assert client.chunks_read == 0


@pytest.mark.parametrize("content_length", [None, 10])
async def test_too_large_body_is_not_read_to_its_end(content_length: int | None) -> None:
    client = Client(*[b"x" * 60] * 10, content_length=content_length)
    with pytest.raises(PayloadTooLarge):
        await read_json_object(client.request, LIMIT)
    assert client.chunks_read == 2


async def test_disconnect_while_reading_raises() -> None:
    client = Client(disconnects=True)
    with pytest.raises(ClientDisconnect):
        await read_json_object(client.request, LIMIT)
