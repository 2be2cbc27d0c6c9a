"""The cases: each puts one kind of overload on a service of its own and compares what callers got with a target."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.overload.caller import Answer, Caller, open_loop
from bench.overload.service import CAPACITY, SHARD_SECONDS, Service, running

SHORT_WAIT_SECONDS = 0.15
"""`max_wait_seconds` where answers must stay fast: the wait of six shards."""
STORM = 10 * CAPACITY


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table."""

    what: str
    measured: str
    target: str
    met: bool
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the loads last, in seconds, and how much work there is."""

    warm_up: float = 8.0
    calm: float = 15.0
    storm: float = 20.0
    afterwards: float = 5.0
    flood_jobs: int = 10_000
    obedient: int = 1200


async def storm(lengths: Lengths) -> list[Measurement]:
    """Ten times the capacity from callers that give up when refused."""
    async with running(lengths.warm_up, SHORT_WAIT_SECONDS) as service:
        call = service.caller.rerank
        calm = await open_loop(0.8 * CAPACITY, lengths.calm, call)
        memory = service.api_megabytes()
        began = time.perf_counter()
        answers = await open_loop(STORM, lengths.storm, call, seed=2)
        first = await call()
        grown = service.api_megabytes() - memory
        await asyncio.sleep(lengths.afterwards)
        kept = service.api_megabytes() - memory
    accepted = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 503]
    other = len(answers) - len(accepted) - len(refused)
    base, accepted_p99, refused_p99 = p99(calm), p99(accepted), p99(refused)
    done = sum(answer.ended - began <= lengths.storm for answer in accepted)
    goodput = done / (CAPACITY * lengths.storm)
    return [
        Measurement(
            f"{STORM:g} requests a second for {lengths.storm:g} s: accepted p99, against p99 at 0.8 of capacity",
            f"{ms(accepted_p99)}, {accepted_p99 / base:.2f}x of {ms(base)}",
            "<= 2x",
            accepted_p99 <= 2 * base and not other,
            {"calm_p99_s": base, "accepted_p99_s": accepted_p99, "accepted": len(accepted), "other": other},
        ),
        Measurement("refusals: p99", ms(refused_p99), "<= 50 ms", refused_p99 <= 0.05, {"refused": len(refused)}),
        Measurement("goodput during the storm, against capacity", f"{goodput:.2f}", ">= 0.95", goodput >= 0.95),
        Measurement(
            "the first call after the storm", ms(first.seconds), "<= 1 s", first.status == 200 and first.seconds <= 1
        ),
        Measurement(
            f"memory of the API: growth, and {lengths.afterwards:g} s later",
            f"{grown:.0f} MB, {kept:.0f} MB",
            "<= 50 MB",
            grown <= 50 and kept <= 50,
        ),
    ]


async def retry_after(lengths: Lengths) -> list[Measurement]:
    """Ten seconds of accepted work; refused callers ask again until they are accepted."""
    async with running(lengths.warm_up) as service:
        call = service.caller.rerank
        preloaded = [asyncio.create_task(call(prefer="wait=60")) for _ in range(int(10 * CAPACITY))]
        await asyncio.sleep(0.5)
        waits = (1, 2, 3, 4, 5, 6, 7)
        probes = await asyncio.gather(*(_time_until_accepted(service.caller, wait) for wait in waits))
        await asyncio.gather(*preloaded)
    hints = [(hint, actual) for hint, actual in probes if hint is not None]
    right = sum(hint <= 1.5 * max(actual, 1) and hint >= 0.5 * actual for hint, actual in hints)
    share = right / len(waits)
    text = ", ".join(f"{hint:g} for {actual:.1f} s" for hint, actual in hints)
    return [
        Measurement(
            f"Retry-After that is right within 50%, at waits of {waits[0]} to {waits[-1]} s",
            f"{share:.2f} ({text})",
            ">= 0.9",
            share >= 0.9,
            {"hints": hints},
        )
    ]


async def _time_until_accepted(caller: Caller, wait: int) -> tuple[float | None, float]:
    """The first refusal's Retry-After, and the seconds until the same request was accepted."""
    first = await caller.rerank(prefer=f"wait={wait}")
    if first.status != 503:
        return None, 0.0
    answer = first
    while answer.status == 503:
        await asyncio.sleep(0.1)
        answer = await caller.rerank(prefer=f"wait={wait}")
    return first.retry_after, answer.sent - first.sent


async def flood_of_jobs(lengths: Lengths) -> list[Measurement]:
    """Key A submits thousands of jobs; then key B sends one."""
    async with running(lengths.warm_up) as service:
        a, b = await service.create_keys("a", "b")
        idle = max([await _job_seconds(service.caller, b) for _ in range(5)])
        submit = partial(service.caller.rerank, key=a, prefer="respond-async")
        await _closed_loop(submit, lengths.flood_jobs, connections=16)
        behind = max([await _job_seconds(service.caller, b) for _ in range(5)])
        waiting = (await service.caller.call("GET", "/v1/pools/lexical", key=b)).body["shards"]
    limit = 2 * idle + SHARD_SECONDS
    return [
        Measurement(
            f"key A has {lengths.flood_jobs:,} jobs, key B sends one: B's time, against an idle service",
            f"{ms(behind)} against {ms(idle)}",
            "<= 2x + one shard",
            behind <= limit and waiting > lengths.flood_jobs / 2,
            {"idle_s": idle, "behind_s": behind, "still_waiting": waiting},
        )
    ]


async def _job_seconds(caller: Caller, key: str) -> float:
    started = time.perf_counter()
    job = (await caller.rerank(key=key, prefer="respond-async")).body
    while job["status"] in ("queued", "running"):
        job = (await caller.call("GET", f"/v1/jobs/{job['id']}", key=key, prefer="wait=30")).body
    return time.perf_counter() - started


async def flood_of_calls(lengths: Lengths, ways: Sequence[bool] = (True, False)) -> list[Measurement]:
    """Key A calls at ten times the capacity, key B at half of its share: evenly (True), or in bursts above it."""
    rate = CAPACITY / 4
    lines = []
    # Long enough that key B's bursts are no reason to refuse it; key A's queue is as long as it may be.
    async with running(lengths.warm_up, max_wait_seconds=2.0) as service:
        a, b = await service.create_keys("a", "b")
        call_a, call_b = partial(service.caller.rerank, key=a), partial(service.caller.rerank, key=b)
        for even in ways:
            alone = await open_loop(rate, lengths.calm, call_b, even=even)
            beside, _ = await asyncio.gather(
                open_loop(rate, lengths.storm, call_b, seed=3, even=even),
                open_loop(STORM, lengths.storm, call_a, seed=4),
            )
            lines.append(_beside_a_flood(rate, alone, beside, "evenly" if even else "at random times"))
    return lines


def _beside_a_flood(rate: float, alone: list[Answer], beside: list[Answer], how: str) -> Measurement:
    refused = sum(answer.status != 200 for answer in beside)
    return Measurement(
        f"key A calls {STORM:g} times a second, key B {rate:g} times, {how}: B's p99, against alone; refused",
        f"{ms(p99(beside))} against {ms(p99(alone))}; {refused} of {len(beside)}",
        "<= 2x; none",
        p99(beside) <= 2 * p99(alone) and not refused,
        {"alone_p99_s": p99(alone), "beside_p99_s": p99(beside)},
    )


async def batch_share(lengths: Lengths) -> list[Measurement]:
    """Batch work of equal shards under a flood of interactive calls."""
    async with running(lengths.warm_up, SHORT_WAIT_SECONDS) as service:
        documents = [f"document {number} " + "word " * 20 for number in range(4 * 2000)]
        job = (await service.caller.rerank(prefer="respond-async", documents=documents)).body
        before = await _shards_done(service.caller, job["id"])
        answers = await open_loop(STORM, lengths.storm, service.caller.rerank, seed=5)
        batch = await _shards_done(service.caller, job["id"]) - before
    share = batch / (batch + sum(answer.status == 200 for answer in answers))
    return [Measurement("batch work under a flood of calls: its share", f"{share:.2f}", ">= 0.1", share >= 0.1)]


async def _shards_done(caller: Caller, job_id: str) -> int:
    return int((await caller.call("GET", f"/v1/jobs/{job_id}")).body["progress"]["shards_done"])


async def obedient_callers(lengths: Lengths) -> list[Measurement]:
    """More callers at once than may wait; each comes back after its Retry-After."""
    async with running(lengths.warm_up, max_wait_seconds=5.0) as service:
        started = time.perf_counter()
        refusals = await asyncio.gather(*(_until_answered(service) for _ in range(lengths.obedient)))
        seconds = time.perf_counter() - started
    bound = lengths.obedient / CAPACITY
    return [
        Measurement(
            f"{lengths.obedient:,} callers that obey Retry-After: all answered after",
            f"{seconds:.1f} s, {seconds / bound:.2f} of the capacity's {bound:.1f} s",
            "<= 1.1",
            seconds <= 1.1 * bound,
            {"seconds": seconds, "refusals": sum(refusals)},
        )
    ]


async def _until_answered(service: Service) -> int:
    """How often the caller was refused. Raises ValueError for another status."""
    for refusals in range(1000):
        answer = await service.caller.rerank()
        if answer.status == 200:
            return refusals
        if answer.status != 503 or answer.retry_after is None:
            raise ValueError(f"status {answer.status}: {answer.body}")
        await asyncio.sleep(answer.retry_after)
    raise ValueError("refused a thousand times")


async def _closed_loop(send: Callable[[], Awaitable[Answer]], count: int, connections: int) -> None:
    """Send `count` requests, each connection one after the other. Raises ValueError for a refused one."""
    left = count

    async def connection() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            if (answer := await send()).status >= 300:
                raise ValueError(f"status {answer.status}: {answer.body}")

    await asyncio.gather(*(connection() for _ in range(connections)))


CASES: dict[str, Callable[[Lengths], Coroutine[Any, Any, list[Measurement]]]] = {
    "storm": storm,
    "retry-after": retry_after,
    "jobs": flood_of_jobs,
    "calls": flood_of_calls,
    "batch": batch_share,
    "obedient": obedient_callers,
}


def p99(answers: Sequence[Answer]) -> float:
    """The 99th percentile of the answers' times, in seconds."""
    seconds = sorted(answer.seconds for answer in answers)
    return seconds[math.ceil(0.99 * len(seconds)) - 1] if seconds else math.nan


def ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
