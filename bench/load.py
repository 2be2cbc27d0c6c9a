"""The load generator: a process of its own that asks for scores over kept-alive connections and times the answers.

Reads one `Load` as JSON from standard input, prints one `Outcome` as JSON. Raw HTTP/1.1 on sockets, requests put
together from bytes: it shares the cores with what it measures, so it says what it cost itself. An answer that is not
what was asked for (another status, another number of results, a score that is no number) is an error.
"""

import asyncio
import gc
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import uvloop

from bench.spec import Freshness, Load, Outcome, percentiles
from bench.words import Words, vocabulary

_ERRORS_KEPT = 5
_WARM_UP_CONNECTIONS = 4
_HEAD_END = b"\r\n\r\n"
SENT = "sent"
"""Printed on a line of its own once every request of a load that is counted in requests is on its way."""


class Requests:
    """Whole HTTP requests, one after another."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._words = Words(vocabulary(Path(load.vocabulary), load.seed), load.seed)
        prefer = "Prefer: respond-async\r\n" if load.respond_async else ""
        self._head = (
            f"POST /v1/rerank HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nContent-Type: application/json\r\n{prefer}"
            "Content-Length: "
        ).encode()
        self._opening = b'{"model":%s,"query":"' % json.dumps(load.model).encode()
        self._serial = load.first

    def next(self) -> bytes:
        load, serial, self._serial = self._load, self._serial, self._serial + 1
        query = load.first if load.fresh is Freshness.NOTHING else serial
        source = serial if load.fresh is Freshness.ALL else load.first
        documents = b'","'.join(self._words.documents(source, load.documents, load.words))
        body = b'%s%s","documents":["%s"]}' % (self._opening, self._words.query(query), documents)
        return b"%s%d\r\n\r\n%s" % (self._head, len(body), body)


class Phase:
    """One stretch of load: what may still be sent, and what came back."""

    def __init__(self, load: Load, seconds: float, requests: int) -> None:
        self.latencies: list[float] = []
        self.outside: list[float] = []
        self.errors: list[str] = []
        self.failed = 0
        self.last_job = ""
        self.ended = asyncio.Event()
        self._load = load
        self._left = requests or sys.maxsize
        self._idle = 0
        self.started = self.last_answer = time.perf_counter()
        self._deadline = self.started + seconds

    def may_send(self) -> bool:
        """Whether one more request goes out; counts it."""
        if self._left == 0 or time.perf_counter() >= self._deadline:
            return False
        self._left -= 1
        if self._left == 0:
            print(SENT, flush=True)
        return True

    def done(self) -> None:
        """One connection has nothing more to do."""
        self._idle += 1
        if self._idle == self._load.connections:
            self.ended.set()

    def fail(self, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(reason)

    def take(self, head: bytes, body: bytes, sent: float) -> None:
        """Count one answer."""
        self.last_answer = time.perf_counter()
        if fault := self._fault(head, body):
            self.fail(fault)
            return
        latency = (self.last_answer - sent) * 1000
        self.latencies.append(latency)
        if (inference := header(head, b"server-timing", b"inference;dur=")) is not None:
            self.outside.append(latency - float(inference))

    def _fault(self, head: bytes, body: bytes) -> str:
        """What is wrong with the answer; nothing when it is as it should be."""
        wanted = b"202" if self._load.respond_async else b"200"
        if head[9:12] != wanted:
            return f"{head[:40].decode(errors='replace').splitlines()[0]}: {body[:300].decode(errors='replace')}"
        try:
            answer = json.loads(body)
            if self._load.respond_async:
                self.last_job = f"/v1/jobs/{answer['id']}"
                return ""
            scores = [row["relevance_score"] for row in answer["results"]]
        except (ValueError, KeyError, TypeError) as error:
            return f"not the answer of a rerank call ({error!r}): {body[:300].decode(errors='replace')}"
        if len(scores) != self._load.documents:
            return f"{len(scores)} results for {self._load.documents} documents"
        if not all(isinstance(score, int | float) and math.isfinite(score) for score in scores):
            return f"a score that is no number: {scores}"
        return ""


class Connection(asyncio.Protocol):
    """One caller: sends, waits, sends again."""

    def __init__(self, requests: Callable[[], bytes]) -> None:
        self._requests = requests
        self._phase: Phase | None = None
        self._buffer = b""
        self._needed = 0
        self._head_length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, phase: Phase) -> None:
        self._phase = phase
        self._send()

    def close(self) -> None:
        """Whatever is still to come is nobody's any more."""
        self._phase = None
        self._transport.close()

    def _send(self) -> None:
        assert self._phase is not None
        if not self._phase.may_send():
            phase, self._phase = self._phase, None
            phase.done()
            return
        self._buffer, self._needed = b"", 0
        request = self._requests()
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            if (end := buffer.find(_HEAD_END)) < 0:
                return
            length = header(buffer[:end], b"content-length", b"")
            if length is None:
                self._give_up("an answer without a Content-Length")
                return
            self._head_length = end + len(_HEAD_END)
            self._needed = self._head_length + int(length)
        if len(buffer) >= self._needed and self._phase is not None:
            self._phase.take(buffer[: self._head_length], buffer[self._head_length :], self._sent)
            self._send()

    def connection_lost(self, exception: Exception | None) -> None:
        self._give_up(f"the connection was lost ({exception or 'closed by the server'})")

    def _give_up(self, reason: str) -> None:
        if self._phase is not None:
            phase, self._phase = self._phase, None
            phase.fail(reason)
            phase.done()


def header(head: bytes, name: bytes, before: bytes) -> bytes | None:
    """In the header of that (lower-case) name, what follows `before` up to the next separator; None without it."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    end = lowered.find(b"\r\n", start + 2)
    line = lowered[start + len(name) + 3 : end if end >= 0 else len(lowered)]
    _, found, rest = line.partition(before) if before else (b"", b":", line)
    return rest.split(b",")[0].split(b";")[0].strip() if found else None


async def run(load: Load) -> Outcome:
    """Warm up, then measure. Raises OSError when nobody listens."""
    requests = Requests(load)
    faults: list[str] = []
    if load.warm_up:
        # A few callers reach all that has to be warm; many would be waited for as long again.
        few = replace(load, connections=min(load.connections, _WARM_UP_CONNECTIONS))
        faults = (await _phase(few, requests, load.warm_up, 0)).errors
    cpu = _cpu_seconds()
    phase = await _phase(load, requests, load.seconds, load.requests)
    cpu = _cpu_seconds() - cpu
    answered = len(phase.latencies)
    return Outcome(
        requests=answered,
        pairs=answered * load.documents,
        seconds=phase.last_answer - phase.started,
        latency_ms=percentiles(phase.latencies),
        outside_ms=percentiles(phase.outside),
        cpu_us=cpu / max(answered, 1) * 1e6,
        failed=phase.failed + len(faults),
        errors=(faults + phase.errors)[:_ERRORS_KEPT],
        last_job=phase.last_job,
    )


async def _phase(load: Load, requests: Requests, seconds: float, count: int) -> Phase:
    """One stretch on connections of its own: servers close those that were idle while others were still answered."""
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []
    for _ in range(load.connections):
        _, connection = await loop.create_connection(lambda: Connection(requests.next), "127.0.0.1", load.port)
        connections.append(connection)
    phase = Phase(load, seconds, count)
    for connection in connections:
        connection.begin(phase)
    try:
        await asyncio.wait_for(phase.ended.wait(), seconds + load.timeout)
    except TimeoutError:
        phase.fail(f"no answer within {load.timeout:g} s")
    for connection in connections:
        connection.close()
    return phase


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    load = Load.from_dict(json.load(sys.stdin))
    gc.disable()
    outcome = uvloop.run(run(load))
    print(json.dumps(asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
