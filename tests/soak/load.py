"""A steady load of waiting calls: a call starts at each tick, whatever became of those before."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import httpx

WORDS = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "glacier", "harbor", "island", "jasper"]
_CALL_SECONDS = 30.0


@dataclass(slots=True)
class Calls:
    """`latencies` are (seconds since the start of the run, seconds of the call) of those that succeeded."""

    started_at: float
    latencies: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0
    """The connection was lost: the API process was killed. The call was repeated at the other one."""
    failed: dict[int, int] = field(default_factory=dict)
    """Answers other than 200, by status."""


class Caller:
    """Calls the APIs in turn. A call whose connection is lost is repeated at the next one, as a client behind a load
    balancer does."""

    def __init__(self, urls: list[str], calls: Calls) -> None:
        self._urls = urls
        self._calls = calls
        self._numbers = itertools.count()

    async def call(self, client: httpx.AsyncClient) -> None:
        """Make one call with a document of its own, and record it."""
        number = next(self._numbers)
        body = {
            "query": WORDS[number % 10],
            "documents": [f"{WORDS[each]} {WORDS[(each + number) % 10]} number {number}" for each in range(5)],
        }
        started = time.monotonic()
        for attempt in range(2 * len(self._urls)):
            try:
                answer = await client.post(f"{self._urls[(number + attempt) % len(self._urls)]}/v1/rerank", json=body)
            except httpx.TransportError:
                self._calls.lost += 1
                continue
            if answer.status_code == 200:
                ended = time.monotonic()
                self._calls.latencies.append((ended - self._calls.started_at, ended - started))
            else:
                self._calls.failed[answer.status_code] = self._calls.failed.get(answer.status_code, 0) + 1
            return
        self._calls.failed[0] = self._calls.failed.get(0, 0) + 1


async def steady(caller: Caller, per_second: float, seconds: float) -> None:
    """Start calls at a constant rate for so long, and wait for the last one."""
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=50)
    async with httpx.AsyncClient(timeout=_CALL_SECONDS, limits=limits) as client:
        tasks: set[asyncio.Task[None]] = set()
        begin = time.monotonic()
        for tick in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, begin + tick / per_second - time.monotonic()))
            task = asyncio.create_task(caller.call(client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)


async def capacity(caller: Caller, seconds: float, callers: int = 24) -> float:
    """Calls per second of so many callers, each with one call at a time."""
    done = 0
    end = time.monotonic() + seconds

    async def repeat(client: httpx.AsyncClient) -> None:
        nonlocal done
        while time.monotonic() < end:
            await caller.call(client)
            done += 1

    async with httpx.AsyncClient(timeout=_CALL_SECONDS) as client:
        await asyncio.gather(*(repeat(client) for _ in range(callers)))
    return done / seconds
