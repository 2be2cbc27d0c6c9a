"""Generates load: waiting calls, jobs and jobs of several shards, some with an Idempotency-Key.

The seed determines the kinds of requests that each caller sends.
"""

import itertools
import random
import threading
import time
from collections.abc import Sequence

import httpx

from tests.chaos.cases import Case, Kind, make_case, parse_ranking
from tests.chaos.cluster import WAIT_SECONDS
from tests.chaos.observer import Observer

_CALL_SECONDS = WAIT_SECONDS + 10.0
_POLL_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_KINDS = (Kind.WAITING, Kind.JOB, Kind.LARGE)
_WEIGHTS = (5, 3, 2)


class CaseNumbers:
    """Generates unique case numbers. Safe to share between threads."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            return next(self._count)


class LoadGenerator:
    """Runs concurrent callers between `start` and `stop`."""

    def __init__(self, urls: Sequence[str], observer: Observer, numbers: CaseNumbers, seed: int, callers: int) -> None:
        self._urls = list(urls)
        self._observer = observer
        self._numbers = numbers
        self._seed = seed
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run_caller, args=(number,), name=f"caller-{number}", daemon=True)
            for number in range(callers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = _CALL_SECONDS + 5) -> None:
        """Start no more calls, and wait up to `seconds` for those in progress."""
        self._stopped.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def submit(self, kind: Kind, webhook: str | None = None) -> str:
        """Submit one job from the calling thread. Returns its id, or an empty string if it was not accepted."""
        with httpx.Client(timeout=10.0) as client:
            rng = random.Random(self._seed)
            return self._submit(client, rng, self._new_case(kind), keyed=False, webhook=webhook)

    def _new_case(self, kind: Kind) -> Case:
        case = make_case(self._seed, self._numbers.next(), kind)
        self._observer.register(case)
        return case

    def _run_caller(self, caller: int) -> None:
        rng = random.Random(f"{self._seed}-{caller}")
        with httpx.Client(timeout=_CALL_SECONDS) as client:
            while not self._stopped.is_set():
                kind = rng.choices(_KINDS, _WEIGHTS)[0]
                case = self._new_case(kind)
                if kind is Kind.WAITING:
                    self._wait(client, rng, case)
                elif job_id := self._submit(client, rng, case, keyed=rng.random() < 0.5):
                    self._poll(client, rng, job_id)

    def _wait(self, client: httpx.Client, rng: random.Random, case: Case) -> None:
        """Make a waiting call. It is not retried when its connection breaks; the observer finds its job in Redis."""
        try:
            response = client.post(f"{rng.choice(self._urls)}/v1/rerank", json=case.body)
        except httpx.TransportError:
            self._observer.connection_lost(case)
            self._stopped.wait(_RETRY_SECONDS)
            return
        if response.status_code == 200:
            self._observer.result_received(response.json()["id"], case, parse_ranking(response.json()))
        elif response.status_code == 504 and (location := response.headers.get("location")):
            self._observer.job_accepted(location.rpartition("/")[2], case)
        elif response.status_code == 503:
            # The caller is told to retry, although the job may exist.
            self._observer.connection_lost(case)
            self._stopped.wait(_RETRY_SECONDS)
        else:
            self._observer.row.wrong.append(f"a waiting call got {response.status_code}: {response.text[:300]}")

    def _submit(
        self, client: httpx.Client, rng: random.Random, case: Case, *, keyed: bool, webhook: str | None = None
    ) -> str:
        """Submit a job. A keyed request is safe to repeat, and is retried until it gets a response."""
        headers = {"Prefer": "respond-async"}
        if keyed:
            headers["Idempotency-Key"] = f"chaos {self._seed} {case.number}"
        while True:
            try:
                body = case.body | {"webhook": webhook}
                response = client.post(f"{rng.choice(self._urls)}/v1/rerank", json=body, headers=headers)
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code == 202:
                job_id = str(response.json()["id"])
                self._observer.job_accepted(job_id, case, keyed=keyed)
                return job_id
            if response is not None and response.status_code != 503:
                self._observer.row.wrong.append(f"a job got {response.status_code}: {response.text[:300]}")
                return ""
            if self._stopped.wait(_RETRY_SECONDS) or not keyed:
                return ""

    def _poll(self, client: httpx.Client, rng: random.Random, job_id: str) -> None:
        """Poll until the job has ended, so that each caller has at most one unfinished job."""
        while not self._stopped.is_set() and not self._observer.has_ended(job_id):
            try:
                url = f"{rng.choice(self._urls)}/v1/jobs/{job_id}"
                client.get(url, headers={"Prefer": "wait=2"}, timeout=_POLL_SECONDS)
            except httpx.TransportError:
                self._stopped.wait(_RETRY_SECONDS)
