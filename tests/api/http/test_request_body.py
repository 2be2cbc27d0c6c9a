import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

import api.http.request_body
from api.http.request_body import cancel_on_disconnect, json_response, read_idempotency_key, read_json_object
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut

LIMIT = 100


class Caller:
    """Sends a body in chunks and then, unless it leaves, stays on the line."""

    def __init__(
        self,
        *chunks: bytes,
        leaves: bool = False,
        announces: int | None = None,
        encoding: str | None = None,
        rest_comes: bool = True,
    ) -> None:
        self._chunks = list(chunks)
        self._leaves = leaves
        self.taken = 0
        self._rest_comes = rest_comes
        headers = [] if announces is None else [(b"content-length", str(announces).encode())]
        headers += [] if encoding is None else [(b"content-encoding", encoding.encode())]
        self.request = Request({"type": "http", "method": "POST", "headers": headers}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        if self.taken < len(self._chunks):
            chunk = self._chunks[self.taken]
            self.taken += 1
            return {"type": "http.request", "body": chunk, "more_body": not self._is_whole()}
        if not self._leaves:
            await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    def _is_whole(self) -> bool:
        return self._rest_comes and self.taken == len(self._chunks)


class TestReading:
    @pytest.mark.parametrize("chunks", [[b'{"a": [1, "\xc3\xbc"]}'], [b'{"a": ', b"", b'[1, "\xc3', b'\xbc"]}']])
    async def test_a_body_is_an_object_in_one_piece_or_in_many(self, chunks: Sequence[bytes]) -> None:
        assert await read_json_object(Caller(*chunks).request, LIMIT) == {"a": [1, "ü"]}

    async def test_a_byte_order_mark_is_passed_over(self) -> None:
        assert await read_json_object(Caller(b"\xef\xbb\xbf{}").request, LIMIT) == {}

    @pytest.mark.parametrize("encoding", ["br", "identity, gzip"])
    async def test_an_unknown_encoding_is_refused_by_name(self, encoding: str) -> None:
        caller = Caller(b"{}", encoding=encoding)
        with pytest.raises(InvalidRequest, match="Content-Encoding"):
            await read_json_object(caller.request, LIMIT)
        assert await read_json_object(Caller(b"{}", encoding="Identity").request, LIMIT) == {}

    async def test_a_body_that_does_not_go_on_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.http.request_body, "BODY_SECONDS", 0.1)
        caller = Caller(b'{"a":', b"", rest_comes=False)
        with pytest.raises(RequestTimedOut):
            await read_json_object(caller.request, LIMIT)

    @pytest.mark.parametrize("body", [b"[]", b'"text"', b"3", b"null"])
    async def test_nothing_but_an_object_is_taken(self, body: bytes) -> None:
        with pytest.raises(InvalidRequest, match="must be a JSON object"):
            await read_json_object(Caller(body).request, LIMIT)

    async def test_a_letter_that_was_cut_in_two_is_mended_unless_that_takes_long(self) -> None:
        half = b'{"a": "%s\\ud83d"}'
        assert await read_json_object(Caller(half % b"").request, LIMIT) == {"a": "\ufffd"}
        with pytest.raises(InvalidRequest, match="not valid JSON"):
            await read_json_object(Caller(half % (b"\\n" * 200_000)).request, 10**6)

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
    async def test_what_is_no_json_is_refused(self, body: bytes) -> None:
        with pytest.raises(InvalidRequest, match="not valid JSON"):
            await read_json_object(Caller(body).request, LIMIT)

    async def test_deep_nesting_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="not valid JSON"):
            await read_json_object(Caller(b"[" * 100_000).request, 10**6)

    async def test_the_limit_itself_is_allowed(self) -> None:
        body = b"{" + b" " * (LIMIT - 2) + b"}"
        assert await read_json_object(Caller(body, announces=LIMIT).request, LIMIT) == {}

    async def test_a_large_body_that_is_announced_is_not_even_begun(self) -> None:
        caller = Caller(b"{}", announces=LIMIT + 1)
        with pytest.raises(PayloadTooLarge, match="over the limit of 100 bytes"):
            await read_json_object(caller.request, LIMIT)
        assert caller.taken == 0

    @pytest.mark.parametrize("announces", [None, 10])
    async def test_a_large_body_is_not_read_to_its_end(self, announces: int | None) -> None:
        caller = Caller(*[b"x" * 60] * 10, announces=announces)
        with pytest.raises(PayloadTooLarge):
            await read_json_object(caller.request, LIMIT)
        assert caller.taken == 2

    async def test_a_caller_that_leaves_meanwhile_is_gone(self) -> None:
        caller = Caller(leaves=True)
        with pytest.raises(ClientDisconnect):
            await read_json_object(caller.request, LIMIT)


def with_key(*keys: str) -> Request:
    headers = [(b"idempotency-key", key.encode("latin-1")) for key in keys]
    return Request({"type": "http", "method": "POST", "headers": headers})


class TestIdempotencyKey:
    def test_nobody_has_to_give_one(self) -> None:
        assert read_idempotency_key(with_key()) is None

    @pytest.mark.parametrize("key", ["8e03978e-40d5-43dd-bc93-6894a57f9324", '"quoted"', "x", "x" * 255])
    def test_it_is_taken_as_it_is(self, key: str) -> None:
        assert read_idempotency_key(with_key(key)) == key

    @pytest.mark.parametrize("key", ["", "x" * 256, "x" * 10_000])
    def test_an_empty_or_endless_one_is_refused(self, key: str) -> None:
        with pytest.raises(InvalidRequest, match="must have 1 to 255 characters") as caught:
            read_idempotency_key(with_key(key))
        assert caught.value.param == "Idempotency-Key"


class TestLeaving:
    async def test_the_work_of_a_caller_that_stays_is_done(self) -> None:
        async def work() -> str:
            return "done"

        assert await cancel_on_disconnect(Caller().request, work()) == "done"

    async def test_what_the_work_raises_is_raised(self) -> None:
        async def work() -> None:
            raise InvalidRequest("no")

        with pytest.raises(InvalidRequest, match="no"):
            await cancel_on_disconnect(Caller().request, work())

    async def test_the_work_of_a_caller_that_leaves_is_cancelled_and_cleaned_up_after(self) -> None:
        cleaned = []

        async def work() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        with pytest.raises(ClientDisconnect):
            async with asyncio.timeout(5):
                await cancel_on_disconnect(Caller(leaves=True).request, work())
        assert cleaned

    async def test_work_that_is_cancelled_from_above_does_not_go_on(self) -> None:
        started, stopped = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            started.set()
            try:
                await asyncio.sleep(30)
            finally:
                stopped.set()

        waiting = asyncio.create_task(cancel_on_disconnect(Caller().request, work()))
        async with asyncio.timeout(5):
            await started.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await stopped.wait()


def test_an_answer_is_compact_utf8_json() -> None:
    response = json_response({"a": ["ü", 0.5]}, 202, {"X-Test": "1"})
    assert bytes(response.body) == '{"a":["ü",0.5]}'.encode()
    assert (response.status_code, response.headers["content-type"]) == (202, "application/json")
    assert response.headers["x-test"] == "1"
