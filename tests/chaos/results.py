"""Reads the result of every job that has succeeded, as a caller would, and compares it with the undisturbed one."""

import queue
import random
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from tests.chaos.cases import Case, Ranking, ranking_of
from tests.chaos.report import Row

_THREADS = 3
_CALL_SECONDS = 1.5
_READ_SECONDS = 20.0
"""How long a result may be unreadable, its API being down, before it counts as lost."""


class _Order(NamedTuple):
    job_id: str
    case: Case | None
    row: Row


class ResultReader:
    """Reads on threads of its own between `start` and `stop`; says in the job's row what is missing or wrong."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="reader", daemon=True) for _ in range(_THREADS)]

    @property
    def pending(self) -> int:
        """How many results are still to be read."""
        return self._pending

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def read(self, job_id: str, case: Case | None, row: Row) -> None:
        """Read the result of this job soon."""
        self._count(1)
        self._orders.put(_Order(job_id, case, row))

    def _run(self) -> None:
        with httpx.Client(timeout=_CALL_SECONDS) as client:
            while (order := self._orders.get()) is not None:
                self._read(client, order)
                self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._pending += change

    def _read(self, client: httpx.Client, order: _Order) -> None:
        deadline = time.monotonic() + _READ_SECONDS
        said = ""
        while time.monotonic() < deadline and not self._stopped.is_set():
            try:
                answer = client.get(f"{random.choice(self._urls)}/v1/jobs/{order.job_id}/results")
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if answer.status_code == 200:
                    if order.case is not None:
                        order.row.wrong += difference(order.job_id, order.case, ranking_of(answer.json()))
                    return
                said = f"{answer.status_code} {answer.text[:150]}"
                if answer.status_code == 500:
                    order.row.wrong.append(f"reading the result of {order.job_id} got {said}")
                elif answer.status_code != 503:
                    break
            self._stopped.wait(0.2)
        order.row.lost.append(f"the result of {order.job_id} cannot be read: {said}")


def difference(job_id: str, case: Case, ranking: Ranking) -> list[str]:
    """A sentence when the ranking is not the undisturbed one."""
    expected = case.expected()
    return [] if ranking == expected else [f"{job_id}: ranked {ranking[:5]}, not {expected[:5]}"]
