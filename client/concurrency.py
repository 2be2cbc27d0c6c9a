"""Runs many requests concurrently on a bounded number of threads, and yields outcomes as they complete.

The threads are daemons, so that an interrupted program does not wait for a long poll to end.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from client.errors import RerankError
from client.records import Outcome, Ranking, Request


class ThreadedRequests:
    """Calls `rank` for each request on `workers` threads. Raises ValueError for less than one worker."""

    def __init__(self, rank: Callable[[Request], Ranking], workers: int) -> None:
        if workers < 1:
            raise ValueError("concurrency must be at least 1")
        self._rank = rank
        self._workers = workers

    def run(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """Yield outcomes as they complete. Errors of the iterable itself are raised after started requests ended."""
        pending: queue.SimpleQueue[tuple[int, Request] | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        threads = [threading.Thread(target=self._work, args=(pending, done), daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        running = 0
        try:
            for position, request in enumerate(requests):
                pending.put((position, request))
                running += 1
                if running == self._workers:
                    running -= 1
                    yield _next_outcome(done)
            while running:
                running -= 1
                yield _next_outcome(done)
        except Exception:
            for _ in range(running):
                done.get()
            raise
        finally:
            for _ in threads:
                pending.put(None)

    def _work(
        self,
        pending: "queue.SimpleQueue[tuple[int, Request] | None]",
        done: "queue.SimpleQueue[Outcome | BaseException]",
    ) -> None:
        while (item := pending.get()) is not None:
            position, request = item
            try:
                done.put(Outcome(position, request, ranking=self._rank(request)))
            except RerankError as error:
                done.put(Outcome(position, request, error=error))
            except BaseException as error:
                done.put(error)


def _next_outcome(done: "queue.SimpleQueue[Outcome | BaseException]") -> Outcome:
    outcome = done.get()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
