"""The load generator: a process that sends rerank requests over kept-alive connections and times the responses.

Reads one `Load` as JSON from standard input and prints one `Outcome` as JSON. It writes raw HTTP/1.1 to sockets to use
little processor time, because it shares the cores with the servers that it measures; it reports its own share. An
unexpected response (another status, another number of results, a score that is not finite) counts as an error.
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
"""The line that is printed when a load with a limit of requests has sent all of them."""


class Requests:
    """Builds complete HTTP requests."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._words = Words(vocabulary(Path(load.vocabulary), load.seed), load.seed)
        prefer = "Prefer: respond-async\r\n" if load.respond_async else ""
        self._head = (
            f"POST /v1/rerank HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nContent-Type: application/json\r\n{prefer}"
            "Content-Length: "
        ).encode()
        truncate = b',"truncate_prompt_tokens":-1' if load.truncate else b""
        self._opening = b'{"model":%s%s,"query":"' % (json.dumps(load.model).encode(), truncate)
        self._serial = load.first

    def next(self) -> bytes:
        load, serial, self._serial = self._load, self._serial, self._serial + 1
        query = load.first if load.fresh is Freshness.NOTHING else serial
        source = serial if load.fresh is Freshness.ALL else load.first
        documents = b'","'.join(self._words.documents(source, load.documents, load.words))
        body = b'%s%s","documents":["%s"]}' % (self._opening, self._words.query(query), documents)
        return b"%s%d\r\n\r\n%s" % (self._head, len(body), body)


class Phase:
    """The warm-up or the measured part of a load: counts requests, and collects latencies and errors."""

    def __init__(self, load: Load, seconds: float, requests: int) -> None:
        self.latencies: list[float] = []
        self.outside: list[float] = []
        self.errors: list[str] = []
        self.failed = 0
        self.last_job = ""
        self.ended = asyncio.Event()
        self._load = load
        self._left = requests or sys.maxsize
        self._ended_connections = 0
        self.started = self.last_response = time.perf_counter()
        self._deadline = self.started + seconds

    def may_send(self) -> bool:
        """Return whether a connection may send one more request, and count that request."""
        if self._left == 0 or time.perf_counter() >= self._deadline:
            return False
        self._left -= 1
        if self._left == 0:
            print(SENT, flush=True)
        return True

    def connection_ended(self) -> None:
        """Record that a connection sends no more requests."""
        self._ended_connections += 1
        if self._ended_connections == self._load.connections:
            self.ended.set()

    def fail(self, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(reason)

    def record(self, head: bytes, body: bytes, sent: float) -> None:
        """Record a response; `sent` is the time of its request."""
        self.last_response = time.perf_counter()
        if fault := self._fault(head, body):
            self.fail(fault)
            return
        latency = (self.last_response - sent) * 1000
        self.latencies.append(latency)
        if (inference := header(head, b"server-timing", b"inference;dur=")) is not None:
            self.outside.append(latency - float(inference))

    def _fault(self, head: bytes, body: bytes) -> str:
        """Return the error in a response; the empty string when it is correct."""
        expected = b"202" if self._load.respond_async else b"200"
        if head[9:12] != expected:
            return f"{head[:40].decode(errors='replace').splitlines()[0]}: {body[:300].decode(errors='replace')}"
        try:
            content = json.loads(body)
            if self._load.respond_async:
                self.last_job = f"/v1/jobs/{content['id']}"
                return ""
            scores = [row["relevance_score"] for row in content["results"]]
        except (ValueError, KeyError, TypeError) as error:
            return f"not a rerank response ({error!r}): {body[:300].decode(errors='replace')}"
        if len(scores) != self._load.documents:
            return f"{len(scores)} results for {self._load.documents} documents"
        if not all(isinstance(score, int | float) and math.isfinite(score) for score in scores):
            return f"a score is not a finite number: {scores}"
        return ""


class Connection(asyncio.Protocol):
    """One kept-alive connection: sends a request, reads the response, and sends the next one."""

    def __init__(self, requests: Callable[[], bytes]) -> None:
        self._requests = requests
        self._phase: Phase | None = None
        self._buffer = b""
        self._needed = 0
        self._head_length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from those of asyncio.
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, phase: Phase) -> None:
        self._phase = phase
        self._send()

    def close(self) -> None:
        """Close the connection and ignore a response that is still to come."""
        self._phase = None
        self._transport.close()

    def _send(self) -> None:
        assert self._phase is not None
        if not self._phase.may_send():
            phase, self._phase = self._phase, None
            phase.connection_ended()
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
                self._fail("a response without Content-Length")
                return
            self._head_length = end + len(_HEAD_END)
            self._needed = self._head_length + int(length)
        if len(buffer) >= self._needed and self._phase is not None:
            self._phase.record(buffer[: self._head_length], buffer[self._head_length :], self._sent)
            self._send()

    def connection_lost(self, exception: Exception | None) -> None:
        self._fail(f"the connection was lost ({exception or 'closed by the server'})")

    def _fail(self, reason: str) -> None:
        if self._phase is not None:
            phase, self._phase = self._phase, None
            phase.fail(reason)
            phase.connection_ended()


def header(head: bytes, name: bytes, before: bytes) -> bytes | None:
    """Return the part of a header between `before` and the next "," or ";"; None when absent. `name` is lower-case."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    end = lowered.find(b"\r\n", start + 2)
    line = lowered[start + len(name) + 3 : end if end >= 0 else len(lowered)]
    _, found, rest = line.partition(before) if before else (b"", b":", line)
    return rest.split(b",")[0].split(b";")[0].strip() if found else None


async def run(load: Load) -> Outcome:
    """Warm up, then measure. Raises OSError when the server cannot be reached."""
    requests = Requests(load)
    warm_up_errors: list[str] = []
    if load.warm_up:
        # A few connections suffice to warm everything up; more would only make the warm-up longer.
        few = replace(load, connections=min(load.connections, _WARM_UP_CONNECTIONS))
        warm_up_errors = (await _phase(few, requests, load.warm_up, 0)).errors
    cpu = _cpu_seconds()
    phase = await _phase(load, requests, load.seconds, load.requests)
    cpu = _cpu_seconds() - cpu
    answered = len(phase.latencies)
    return Outcome(
        requests=answered,
        pairs=answered * load.documents,
        seconds=phase.last_response - phase.started,
        latency_ms=percentiles(phase.latencies),
        outside_ms=percentiles(phase.outside),
        cpu_us=cpu / max(answered, 1) * 1e6,
        failed=phase.failed + len(warm_up_errors),
        errors=(warm_up_errors + phase.errors)[:_ERRORS_KEPT],
        last_job=phase.last_job,
    )


async def _phase(load: Load, requests: Requests, seconds: float, count: int) -> Phase:
    """Run one phase on new connections: a server may have closed connections that idled in the phase before."""
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
        phase.fail(f"no response within {load.timeout:g} s")
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
