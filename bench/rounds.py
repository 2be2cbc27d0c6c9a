"""The run: each server in its turn, each case on it, round after round.

Owns the order of things. A case that fails is written down and the others go on; nothing outlives its turn.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench import models, servers
from bench.cases import CASES, ENGINE, Measured
from bench.generator import MeasurementFailed
from bench.measurements import Measurements, Plan
from bench.servers import OURS, THEIRS, Server
from infra.local.stack import StackError
from shared.errors import RerankqError

COLD = "theirs, first start"
"""Compiles what every later start finds done, and so counts for nothing; it is in the results all the same."""
_NO_CACHE = {"RERANKQ_SCORE_CACHE": "false"}
_CACHE = {"RERANKQ_SCORE_CACHE": "true"}
_TURNS_OF_THEIR_OWN = {"a-engine", "i", "j"}


class Run:
    """One run of the benchmark, in a folder that its caller removes."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._model = folder / "cross-encoder"
        self._began = time.monotonic()
        self._on = Measurements(plan, self._model, self._tell)

    @property
    def measured(self) -> Measured:
        """All that is known so far."""
        return self._on.measured

    def all(self) -> None:
        """Every round of every case. Raises MeasurementFailed when there is no model to measure."""
        self._on.where = "before round 1"
        self._tell("making the cross-encoder")
        models.make_cross_encoder(self._model, self._folder / "model.log")
        if "h" in self._plan.cases:
            self._turn(COLD, self._theirs(), lambda server: self._on.record("h", COLD, server.first_score_seconds))
        for number in range(1, self._plan.rounds + 1):
            self._on.where = f"round {number} of {self._plan.rounds}"
            self._one_round()

    def _one_round(self) -> None:
        cases = set(self._plan.cases)
        if cases - _TURNS_OF_THEIR_OWN:
            self._turn(THEIRS, self._theirs(), self._common_cases)
            self._turn(OURS, servers.ours(self._model, _NO_CACHE), self._common_cases)
        if "a-engine" in cases:
            with self._failing_alone(ENGINE, "a-engine"):
                self._on.bare_engine(self._folder)
        if "i" in cases:
            for side, server in (
                (THEIRS, servers.theirs(models.bundled(), self._folder)),
                (OURS, servers.ours(None, _NO_CACHE)),
            ):
                self._turn(side, server, self._on.known_documents, "i")
        if "j" in cases:
            self._turn(OURS, servers.ours(self._model, _CACHE), self._on.repeated_request, "j")

    def _theirs(self) -> AbstractContextManager[Server]:
        return servers.theirs(self._model, self._folder)

    def _common_cases(self, server: Server) -> None:
        if "h" in self._plan.cases:
            self._on.record("h", server.name, server.first_score_seconds)
        for name in self._plan.cases:
            if CASES[name].shape is not None:
                with self._failing_alone(server.name, name):
                    self._on.plain(server, name)
        if "l" in self._plan.cases:
            with self._failing_alone(server.name, "l"):
                self._on.sweep(server)
        # Last: what it leaves in the queue goes away with the server.
        if "g" in self._plan.cases:
            with self._failing_alone(server.name, "g"):
                self._on.behind_backlog(server)

    def _turn(
        self,
        side: str,
        server: AbstractContextManager[Server],
        cases: Callable[[Server], None],
        name: str = "the server",
    ) -> None:
        """One server's time, from its start to its end."""
        with self._failing_alone(side, name):
            self._tell(f"{side}: starting")
            with server as running:
                cases(running)

    @contextmanager
    def _failing_alone(self, side: str, name: str) -> Iterator[None]:
        """Whatever fails inside fails alone."""
        try:
            yield
        except (MeasurementFailed, StackError, RerankqError, OSError) as error:
            self.measured.failures.append(f"{self._on.where}: {side}, {name}: {error}")
            self._tell(f"{side}, {name}: FAILED: {error}")

    def _tell(self, what: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {self._on.where}: {what}", file=sys.stderr, flush=True)
