"""Reads the result of every succeeded job over HTTP, and compares it with the expected ranking."""

import queue
import random
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from tests.chaos.cases import Case, Ranking, parse_ranking
from tests.chaos.report import ReportRow

_THREADS = 3
_CALL_SECONDS = 1.5
_UNAVAILABLE_SECONDS = 20.0
"""How long a result may be unavailable before it counts as lost; the API may be down."""


class _Check(NamedTuple):
    job_id: str
    case: Case | None
    row: ReportRow


class ResultChecker:
    """Runs on its own threads between `start` and `stop`. Adds lost and wrong results to the job's row."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)
        self._checks: queue.SimpleQueue[_Check | None] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="result-checker", daemon=True) for _ in range(_THREADS)
        ]

    @property
    def pending(self) -> int:
        """The number of results that are not checked yet."""
        return self._pending

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for _ in self._threads:
            self._checks.put(None)
        for thread in self._threads:
            thread.join()

    def check(self, job_id: str, case: Case | None, row: ReportRow) -> None:
        """Check the result of this job on another thread."""
        self._count(1)
        self._checks.put(_Check(job_id, case, row))

    def _run(self) -> None:
        with httpx.Client(timeout=_CALL_SECONDS) as client:
            while (check := self._checks.get()) is not None:
                self._check(client, check)
                self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._pending += change

    def _check(self, client: httpx.Client, check: _Check) -> None:
        deadline = time.monotonic() + _UNAVAILABLE_SECONDS
        last_failure = ""
        while time.monotonic() < deadline and not self._stopped.is_set():
            try:
                response = client.get(f"{random.choice(self._urls)}/v1/jobs/{check.job_id}/results")
            except httpx.TransportError as error:
                last_failure = repr(error)
            else:
                if response.status_code == 200:
                    if check.case is not None:
                        check.row.wrong += compare_ranking(check.job_id, check.case, parse_ranking(response.json()))
                    return
                last_failure = f"{response.status_code} {response.text[:150]}"
                if response.status_code == 500:
                    check.row.wrong.append(f"the result of {check.job_id} returned {last_failure}")
                elif response.status_code != 503:
                    break
            self._stopped.wait(0.2)
        check.row.lost.append(f"the result of {check.job_id} cannot be read: {last_failure}")


def compare_ranking(job_id: str, case: Case, ranking: Ranking) -> list[str]:
    """Return a description of the problem if the ranking is not the expected one."""
    expected = case.expected()
    return [] if ranking == expected else [f"{job_id}: ranking {ranking[:5]}, expected {expected[:5]}"]
