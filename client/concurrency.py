"""Many requests at once, on threads: so many at a time, read as they are worked off, and left at any moment.

The threads are daemons: whoever is interrupted does not wait for a long poll to end.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from client.errors import RerankError
from client.records import Outcome, Ranking, Request


class ThreadedRequests:
    """`workers` threads that do `one` for each request."""

    def __init__(self, one: Callable[[Request], Ranking], workers: int) -> None:
        if workers < 1:
            raise ValueError("concurrency must be at least 1")
        self._one = one
        self._workers = workers

    def over(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """Outcomes as they are ready. What `requests` itself raises is raised here, after what was begun has ended."""
        given: queue.SimpleQueue[tuple[int, Request] | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        threads = [threading.Thread(target=self._work, args=(given, done), daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        running = 0
        try:
            for position, request in enumerate(requests):
                given.put((position, request))
                running += 1
                if running == self._workers:
                    running -= 1
                    yield _taken(done)
            while running:
                running -= 1
                yield _taken(done)
        except Exception:
            for _ in range(running):
                done.get()
            raise
        finally:
            for _ in threads:
                given.put(None)

    def _work(
        self,
        given: "queue.SimpleQueue[tuple[int, Request] | None]",
        done: "queue.SimpleQueue[Outcome | BaseException]",
    ) -> None:
        while (item := given.get()) is not None:
            position, request = item
            try:
                done.put(Outcome(position, request, ranking=self._one(request)))
            except RerankError as error:
                done.put(Outcome(position, request, error=error))
            except BaseException as error:
                done.put(error)


def _taken(done: "queue.SimpleQueue[Outcome | BaseException]") -> Outcome:
    outcome = done.get()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
