"""Measures each case on a running server and adds the result to a `Measured`. Does not start or stop servers.

Assigns the serial numbers of the loads: no two loads of a run send the same pair, except in the cases that repeat
requests.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import models, servers
from bench.cases import BACKLOG_DOCUMENTS, CASES, ENGINE, LONG_WORDS, ONNX, SWEEP_CONNECTIONS, Case, Measured
from bench.generator import MeasurementFailed, bare_engine, measure, outcome, running, wait_until_sent
from bench.peers.loops import BATCH, LOOPS, run_loop
from bench.servers import OURS, Server
from bench.spec import Freshness, Load, Outcome

_SERIALS_PER_LOAD = 10_000_000
_BACKLOG_CONNECTIONS = 8
_BACKLOG_PAIRS_PER_SECOND = 500
"""Above the rate of any server on this machine, so that the measurement ends before the backlog does."""
_BACKLOG_SENDING_SECONDS = 60.0
_BACKLOG_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` is the length of each load; `backlog` is the number of pairs queued in case g."""

    cases: list[str]
    rounds: int
    seconds: float
    backlog: int
    seed: int


class Measurements:
    """One method per kind of case. `where` names the current round in the results; `tell` prints a line of progress."""

    def __init__(self, plan: Plan, model: Path, tell: Callable[[str], None], cases: Mapping[str, Case] = CASES) -> None:
        self.measured = Measured()
        self.where = ""
        self._plan = plan
        self._cases = cases
        self._model = model
        self._tell = tell
        self._serials = itertools.count(0, _SERIALS_PER_LOAD)

    def plain(self, server: Server, name: str, side: str = "") -> None:
        """Measure a case with one load, whose value is a quantity of its outcome. `side`: default is the server's."""
        case = self._cases[name]
        assert case.shape is not None
        connections, documents, words = case.shape
        load = replace(
            self._load(server),
            connections=connections,
            documents=documents,
            words=words,
            # vLLM's server rejects a text that is too long, unless the request allows to cut it.
            truncate=words >= LONG_WORDS,
        )
        cpu_case = f"{name}-cpu"
        if server.worker_cpu_seconds is not None and cpu_case in self._plan.cases:
            found = self._run_with_worker_cpu(server, name, cpu_case, load)
        else:
            found = self._run(server, name, load)
        self.record(name, side or server.name, _value(found, case.value))
        if name == "e" and server.name == OURS and "k" in self._plan.cases:
            if not found.outside_ms:
                raise MeasurementFailed("k: the responses lack the engine's time (Server-Timing: inference)")
            self.record("k", OURS, found.outside_ms["p50"])

    def sweep(self, server: Server) -> None:
        """Measure the latency at each number of connections."""
        for connections in SWEEP_CONNECTIONS:
            load = replace(self._load(server), connections=connections, seconds=max(self._plan.seconds / 4, 0.5))
            found = self._run(server, "l", load)
            curve = self.measured.curves.setdefault(server.name, {})
            curve.setdefault(connections, []).append(found.latency_ms)
            self._tell(f"{server.name}, l: {connections} connections, p50 {found.latency_ms['p50']:.1f} ms")

    def behind_backlog(self, server: Server) -> None:
        """Measure sequential calls while batch work is queued. The rest of that work stays in the server's queue."""
        requests = -(-self._plan.backlog // BACKLOG_DOCUMENTS)
        jobs = server.name == OURS
        # Jobs can be submitted a few at a time; synchronous requests queue only if all are sent at once.
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
                found = self._run(server, "g", caller)
                _require_unfinished(server, last_job)
            else:
                found = self._run(server, "g", caller)
                outcome(process)
        self.record("g", server.name, found.latency_ms["max"])

    def known_documents(self, server: Server) -> None:
        """Measure new queries for the same documents, on the bi-encoder."""
        load = replace(
            self._load(server), documents=100, vocabulary=str(models.bundled()), fresh=Freshness.QUERY, timeout=60.0
        )
        found = self._run(server, "i", load)
        self.record("i", server.name, found.latency_ms["p50"])

    def repeated_request(self, server: Server) -> None:
        """Measure repetitions of one request after the only worker has stopped."""
        again = replace(self._load(server), documents=20, fresh=Freshness.NOTHING, timeout=3.0)
        measure(replace(again, seconds=1.0, warm_up=0.0, requests=2, timeout=60.0))
        server.stop_worker()
        try:
            found = measure(again)
        except MeasurementFailed as error:
            self.measured.misses["j"] = f"a repeated request fails when no worker runs ({error})"
            self._tell(f"{server.name}, j: {self.measured.misses['j']}")
            return
        self._keep(server, "j", again, found)
        self.record("j", server.name, found.latency_ms["p50"])

    def bare_engine(self, folder: Path) -> None:
        """Measure vLLM's engine without a server, on pairs like those of case a."""
        settings = {
            "model": str(self._model),
            "seconds": self._plan.seconds,
            "words": [100],
            "first": next(self._serials),
            "seed": self._plan.seed,
            "engine_args": dict(servers.FLOAT32),
        }
        (found,) = bare_engine(settings, servers.environment(folder), folder / "engine.log")
        self.record("a-engine", ENGINE, found.pairs_per_second)

    def onnx(self, folder: Path, cases: Sequence[str]) -> None:
        """Measure ONNX Runtime without a server, on pairs like those of these cases."""
        loads = [(BATCH, shape[2]) for name in cases if (shape := self._cases[name].shape)]
        found = run_loop(LOOPS["onnx"], self._model, loads, self._plan.seconds, self._plan.seed, folder)
        for name, result in zip(cases, found, strict=True):
            self.record(name, ONNX, result.pairs_per_second)

    def record(self, case: str, side: str, value: float) -> None:
        """Add the value of one round to the results and print it."""
        self.measured.add(case, side, value)
        self._tell(f"{side}, {case}: {value:.4g} {self._cases[case].unit}")

    def _load(self, server: Server) -> Load:
        """Return the basic load, which the cases vary: one connection, one new document of 100 words per request."""
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

    def _run(self, server: Server, case: str, load: Load) -> Outcome:
        server.check()
        found = measure(load)
        self._keep(server, case, load, found)
        return found

    def _run_with_worker_cpu(self, server: Server, name: str, cpu_case: str, load: Load) -> Outcome:
        """Run the load, and record the worker's processor time per pair in milliseconds."""
        assert server.worker_cpu_seconds is not None
        # The warm-up is a load of its own: the worker's time would include its pairs, which the outcome does not.
        measure(replace(load, first=next(self._serials), seconds=load.warm_up, warm_up=0.0))
        before = server.worker_cpu_seconds()
        found = self._run(server, name, replace(load, warm_up=0.0))
        used = server.worker_cpu_seconds() - before
        self.record(cpu_case, server.name, used * 1000 / found.pairs)
        return found

    def _keep(self, server: Server, case: str, load: Load, found: Outcome) -> None:
        labels = {"round": self.where, "server": server.name, "case": case}
        shape = {"connections": load.connections, "documents": load.documents, "words": load.words}
        self.measured.loads.append(labels | shape | found.to_dict())


def _value(found: Outcome, name: str) -> float:
    rates = {"pairs": found.pairs_per_second, "requests": found.requests_per_second}
    return rates[name] if name in rates else found.latency_ms[name]


def _require_unfinished(server: Server, job: str) -> None:
    """Check that the last submitted job is unfinished, so that every call was made behind a backlog."""
    status, body = servers.get(server.port, job)
    if status != 200 or json.loads(body).get("status") not in ("queued", "running"):
        raise MeasurementFailed(f"the backlog ended before the measurement did: {body[:300]!r}")
