"""Callers that keep the cluster busy: waiting calls, jobs, jobs of several shards, some with an Idempotency-Key.

Seeded: each caller's sequence of requests is fixed, whatever becomes of them.
"""

import itertools
import random
import threading
import time
from collections.abc import Sequence

import httpx

from tests.chaos.cases import Case, Kind, make_case, ranking_of
from tests.chaos.cluster import WAIT_SECONDS
from tests.chaos.observer import Observer

_CALL_SECONDS = WAIT_SECONDS + 10.0
_POLL_SECONDS = 5.0
_REFUSED_SECONDS = 0.2
_KINDS = (Kind.WAITING, Kind.JOB, Kind.LARGE)
_WEIGHTS = (5, 3, 2)


class Numbers:
    """Hands out the numbers of cases, each once."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            return next(self._count)


class Load:
    """Runs between `start` and `stop`; `stop` waits for answers that are on their way."""

    def __init__(self, urls: Sequence[str], observer: Observer, numbers: Numbers, seed: int, callers: int) -> None:
        self._urls = list(urls)
        self._observer = observer
        self._numbers = numbers
        self._seed = seed
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._call_on, args=(number,), name=f"caller-{number}", daemon=True)
            for number in range(callers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = _CALL_SECONDS + 5) -> None:
        """Start no call any more, and wait for those under way."""
        self._stopped.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def submit(self, kind: Kind) -> str:
        """Submit one job from this thread; answers its id, empty when it was not accepted."""
        with httpx.Client(timeout=10.0) as client:
            return self._submit(client, random.Random(self._seed), self._new(kind), keyed=False)

    def _new(self, kind: Kind) -> Case:
        case = make_case(self._seed, self._numbers.next(), kind)
        self._observer.expect(case)
        return case

    def _call_on(self, caller: int) -> None:
        rng = random.Random(f"{self._seed}-{caller}")
        with httpx.Client(timeout=_CALL_SECONDS) as client:
            while not self._stopped.is_set():
                kind = rng.choices(_KINDS, _WEIGHTS)[0]
                case = self._new(kind)
                if kind is Kind.WAITING:
                    self._wait(client, rng, case)
                elif job_id := self._submit(client, rng, case, keyed=rng.random() < 0.5):
                    self._poll(client, rng, job_id)

    def _wait(self, client: httpx.Client, rng: random.Random, case: Case) -> None:
        """A waiting call. One whose connection breaks is not repeated: its job is found in Redis, if there is one."""
        try:
            answer = client.post(f"{rng.choice(self._urls)}/v1/rerank", json=case.body)
        except httpx.TransportError:
            self._observer.broke(case)
            self._stopped.wait(_REFUSED_SECONDS)
            return
        if answer.status_code == 200:
            self._observer.answered(answer.json()["id"], case, ranking_of(answer.json()))
        elif answer.status_code == 504 and (location := answer.headers.get("location")):
            self._observer.accepted(location.rpartition("/")[2], case)
        elif answer.status_code == 503:
            # Told to try again, although the job may be there.
            self._observer.broke(case)
            self._stopped.wait(_REFUSED_SECONDS)
        else:
            self._observer.row.wrong.append(f"a waiting call got {answer.status_code}: {answer.text[:300]}")

    def _submit(self, client: httpx.Client, rng: random.Random, case: Case, *, keyed: bool) -> str:
        """Submit a job. With a key it is safe to send it again until there is an answer, and so it is."""
        headers = {"Prefer": "respond-async"}
        if keyed:
            headers["Idempotency-Key"] = f"chaos {self._seed} {case.number}"
        while True:
            try:
                answer = client.post(f"{rng.choice(self._urls)}/v1/rerank", json=case.body, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                job_id = str(answer.json()["id"])
                self._observer.accepted(job_id, case, keyed=keyed)
                return job_id
            if answer is not None and answer.status_code != 503:
                self._observer.row.wrong.append(f"a job got {answer.status_code}: {answer.text[:300]}")
                return ""
            if self._stopped.wait(_REFUSED_SECONDS) or not keyed:
                return ""

    def _poll(self, client: httpx.Client, rng: random.Random, job_id: str) -> None:
        """Wait for the job's end as a caller would, so that no caller has more than one job open."""
        while not self._stopped.is_set() and not self._observer.has_ended(job_id):
            try:
                url = f"{rng.choice(self._urls)}/v1/jobs/{job_id}"
                client.get(url, headers={"Prefer": "wait=2"}, timeout=_POLL_SECONDS)
            except httpx.TransportError:
                self._stopped.wait(_REFUSED_SECONDS)
