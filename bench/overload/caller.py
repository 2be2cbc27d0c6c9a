"""Sends HTTP requests at given times, whether or not earlier ones were answered (an open loop)."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `sent` is the time of the request (time.perf_counter), `seconds` the time until its answer."""

    status: int
    sent: float
    seconds: float
    retry_after: float | None
    body: Any

    @property
    def ended(self) -> float:
        return self.sent + self.seconds


class Caller:
    """A client with as many kept-alive connections as it has requests in progress."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, prefer: str | None = None
    ) -> Answer:
        """Send a request and read its response. Raises OSError or ValueError."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
        headers += ["Content-Type: application/json"] if content else []
        headers += [f"Authorization: Bearer {key}"] if key else []
        headers += [f"Prefer: {prefer}"] if prefer else []
        request = "\r\n".join([*headers, "", ""]).encode() + content
        sent = time.perf_counter()
        while True:
            is_new = not self._idle
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(request)
                answer = await _read_answer(reader, sent)
            except (OSError, EOFError) as error:
                writer.close()
                if is_new:
                    raise ConnectionError(f"the connection was lost: {error}") from error
                # The server closed it while it was idle.
                continue
            except BaseException:
                writer.close()
                raise
            self._idle.append((reader, writer))
            return answer

    async def rerank(self, *, key: str | None = None, prefer: str | None = None, **fields: Any) -> Answer:
        """Rank four short documents, or those in `fields`."""
        return await self.call("POST", "/v1/rerank", request_body() | fields, key=key, prefer=prefer)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _read_answer(reader: asyncio.StreamReader, sent: float) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    retry_after = headers.get("retry-after")
    return Answer(
        status=int(head.split(" ", 2)[1]),
        sent=sent,
        seconds=time.perf_counter() - sent,
        retry_after=None if retry_after is None else float(retry_after),
        body=json.loads(body) if body else None,
    )


def request_body() -> dict[str, Any]:
    """A request of one shard with new texts."""
    number = random.random()
    return {
        "query": f"query {number}",
        "documents": [f"document {number} {place} " + "word " * 20 for place in range(4)],
    }


async def open_loop(
    rate: float, seconds: float, send: Callable[[], Awaitable[Answer]], seed: int = 1, *, even: bool = False
) -> list[Answer]:
    """Send `rate` requests a second and wait for all answers.

    They are sent at random times (a Poisson process), or at equal distances.
    """
    chance = random.Random(seed)
    started = time.perf_counter()
    sending: list[asyncio.Task[Answer]] = []
    at = 0.0
    while (at := at + (1 / rate if even else chance.expovariate(rate))) < seconds:
        if (wait := started + at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        sending.append(asyncio.create_task(_as_task(send)))
    return await asyncio.gather(*sending)


async def _as_task(send: Callable[[], Awaitable[Answer]]) -> Answer:
    return await send()
