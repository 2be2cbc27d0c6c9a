"""Runs many calls concurrently, and yields their results as they complete: on threads, or as asyncio tasks.

The threads are daemons, so that an interrupted program does not wait for a long poll to end.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class ThreadedCalls(Generic[ItemT, ResultT]):
    """Calls `call` for each item on `workers` threads. Raises ValueError for less than one worker."""

    def __init__(self, call: Callable[[ItemT], ResultT], workers: int) -> None:
        _require_one(workers)
        self._call = call
        self._workers = workers

    def run(self, items: Iterable[ItemT]) -> Iterator[ResultT]:
        """Yield results as they complete. Raises what a call raises.

        Errors of the iterable itself are raised after started calls ended.
        """
        pending: queue.SimpleQueue[tuple[ItemT] | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[ResultT] | BaseException] = queue.SimpleQueue()
        threads = [threading.Thread(target=self._work, args=(pending, done), daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        running = 0
        try:
            for item in items:
                pending.put((item,))
                running += 1
                if running == self._workers:
                    running -= 1
                    yield _next_result(done)
            while running:
                running -= 1
                yield _next_result(done)
        except Exception:
            for _ in range(running):
                done.get()
            raise
        finally:
            for _ in threads:
                pending.put(None)

    def _work(
        self,
        pending: "queue.SimpleQueue[tuple[ItemT] | None]",
        done: "queue.SimpleQueue[tuple[ResultT] | BaseException]",
    ) -> None:
        while (item := pending.get()) is not None:
            try:
                done.put((self._call(*item),))
            except BaseException as error:
                done.put(error)


async def run_concurrently(
    call: Callable[[ItemT], Awaitable[ResultT]], items: Iterable[ItemT], concurrency: int
) -> AsyncGenerator[ResultT, None]:
    """Yield the results of at most `concurrency` calls at once, as they complete. Cancels calls when it is closed.

    Raises ValueError for a concurrency below one, and what a call raises.
    """
    _require_one(concurrency)
    running: set[asyncio.Future[ResultT]] = set()
    try:
        for item in items:
            running.add(asyncio.ensure_future(call(item)))
            if len(running) == concurrency:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _require_one(concurrency: int) -> None:
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")


def _next_result(done: "queue.SimpleQueue[tuple[ResultT] | BaseException]") -> ResultT:
    result = done.get()
    if isinstance(result, BaseException):
        raise result
    return result[0]
