"""Each case, as it is measured on a server that runs. Fills a `Measured`; starts and stops no server.

Owns the loads and their serial numbers: no two loads of a run send the same pair, save where repeating is the case.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench import models, servers
from bench.cases import BACKLOG_DOCUMENTS, CASES, ENGINE, SWEEP_CONNECTIONS, Measured
from bench.generator import MeasurementFailed, bare_engine, measure, outcome, running, wait_until_sent
from bench.servers import OURS, Server
from bench.spec import Freshness, Load, Outcome

_SERIALS_PER_LOAD = 10_000_000
_BACKLOG_CONNECTIONS = 8
_BACKLOG_PAIRS_PER_SECOND = 500
"""Faster than any server here: measuring among the backlog ends before the backlog does."""
_BACKLOG_SENDING_SECONDS = 60.0
_BACKLOG_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`cases` are those to measure, `seconds` is one load's length, `backlog` counts the pairs queued in case g."""

    cases: list[str]
    rounds: int
    seconds: float
    backlog: int
    seed: int


class Measurements:
    """The cases by what they do. `where` says which round this is; `tell` puts a line on the screen."""

    def __init__(self, plan: Plan, model: Path, tell: Callable[[str], None]) -> None:
        self.measured = Measured()
        self.where = ""
        self._plan = plan
        self._model = model
        self._tell = tell
        self._serials = itertools.count(0, _SERIALS_PER_LOAD)

    def plain(self, server: Server, name: str) -> None:
        """A case that is one load and one number of its outcome."""
        case = CASES[name]
        assert case.shape is not None
        connections, documents, words = case.shape
        load = replace(self._load(server), connections=connections, documents=documents, words=words)
        found = self._put_on(server, name, load)
        self.record(name, server.name, _value(found, case.value))
        if name == "e" and server.name == OURS and "k" in self._plan.cases:
            if not found.outside_ms:
                raise MeasurementFailed("k: the answers do not say the engine's time (Server-Timing: inference)")
            self.record("k", OURS, found.outside_ms["p50"])

    def sweep(self, server: Server) -> None:
        """Latency at each number of connections."""
        for connections in SWEEP_CONNECTIONS:
            load = replace(self._load(server), connections=connections, seconds=max(self._plan.seconds / 4, 0.5))
            found = self._put_on(server, "l", load)
            curve = self.measured.curves.setdefault(server.name, {})
            curve.setdefault(connections, []).append(found.latency_ms)
            self._tell(f"{server.name}, l: {connections} connections, p50 {found.latency_ms['p50']:.1f} ms")

    def behind_backlog(self, server: Server) -> None:
        """One caller after another while batch work waits; what is left of that is the caller's to throw away."""
        requests = -(-self._plan.backlog // BACKLOG_DOCUMENTS)
        jobs = server.name == OURS
        # Jobs are handed in one by one; ordinary requests have to be on their way all at once.
        backlog = replace(
            self._load(server),
            connections=min(_BACKLOG_CONNECTIONS, requests) if jobs else requests,
            documents=BACKLOG_DOCUMENTS,
            requests=requests,
            seconds=_BACKLOG_SENDING_SECONDS,
            warm_up=0.0,
            timeout=_BACKLOG_TIMEOUT,
            respond_async=jobs,
        )
        seconds = min(self._plan.seconds, self._plan.backlog / _BACKLOG_PAIRS_PER_SECOND)
        caller = replace(self._load(server), seconds=seconds, warm_up=0.0, timeout=_BACKLOG_TIMEOUT)
        with running(backlog) as process:
            wait_until_sent(process)
            if jobs:
                last_job = outcome(process).last_job
                found = self._put_on(server, "g", caller)
                _require_unfinished(server, last_job)
            else:
                found = self._put_on(server, "g", caller)
                outcome(process)
        self.record("g", server.name, found.latency_ms["max"])

    def known_documents(self, server: Server) -> None:
        """The same documents under a new query each time, on the bi-encoder."""
        load = replace(
            self._load(server), documents=100, vocabulary=str(models.bundled()), fresh=Freshness.QUERY, timeout=60.0
        )
        found = self._put_on(server, "i", load)
        self.record("i", server.name, found.latency_ms["p50"])

    def repeated_request(self, server: Server) -> None:
        """The same request again and again, after the only worker has gone."""
        again = replace(self._load(server), documents=20, fresh=Freshness.NOTHING, timeout=3.0)
        measure(replace(again, seconds=1.0, warm_up=0.0, requests=2, timeout=60.0))
        server.stop_worker()
        try:
            found = measure(again)
        except MeasurementFailed as error:
            self.measured.misses["j"] = f"a repeated request is not answered without a worker ({error})"
            self._tell(f"{server.name}, j: {self.measured.misses['j']}")
            return
        self._keep(server, "j", again, found)
        self.record("j", server.name, found.latency_ms["p50"])

    def bare_engine(self, folder: Path) -> None:
        """vLLM's engine without any server, on pairs like those of case a."""
        order = {
            "model": str(self._model),
            "seconds": self._plan.seconds,
            "words": 100,
            "first": next(self._serials),
            "seed": self._plan.seed,
        }
        found = bare_engine(order, servers.environment(folder), folder / "engine.log")
        self.record("a-engine", ENGINE, found.pairs_per_second)

    def record(self, case: str, side: str, value: float) -> None:
        """Keep one round's number, and say it."""
        self.measured.add(case, side, value)
        self._tell(f"{side}, {case}: {value:.4g} {CASES[case].unit}")

    def _load(self, server: Server) -> Load:
        """One connection, one document of 100 words, all of it new: what the cases depart from."""
        return Load(
            port=server.port,
            model=server.model,
            vocabulary=str(self._model),
            first=next(self._serials),
            connections=1,
            documents=1,
            words=100,
            seconds=self._plan.seconds,
            warm_up=min(1.0, self._plan.seconds / 4),
            seed=self._plan.seed,
        )

    def _put_on(self, server: Server, case: str, load: Load) -> Outcome:
        server.check()
        found = measure(load)
        self._keep(server, case, load, found)
        return found

    def _keep(self, server: Server, case: str, load: Load, found: Outcome) -> None:
        what = {"round": self.where, "server": server.name, "case": case}
        shape = {"connections": load.connections, "documents": load.documents, "words": load.words}
        self.measured.loads.append(what | shape | found.to_dict())


def _value(found: Outcome, name: str) -> float:
    rates = {"pairs": found.pairs_per_second, "requests": found.requests_per_second}
    return rates[name] if name in rates else found.latency_ms[name]


def _require_unfinished(server: Server, job: str) -> None:
    """The last job that was handed in still waits: the callers were among a backlog all the time."""
    status, body = servers.get(server.port, job)
    if status != 200 or json.loads(body).get("status") not in ("queued", "running"):
        raise MeasurementFailed(f"the backlog was gone before the measurement ended: {body[:300]!r}")
