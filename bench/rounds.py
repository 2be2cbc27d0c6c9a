"""Runs the rounds of the benchmark: starts one server at a time and measures its cases.

Records the failure of a case and goes on with the others. Every server is stopped at the end of its turn.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench import models, servers
from bench.cases import CASES, ENGINE, ONNX, UNCACHED, Measured, Setup
from bench.generator import MeasurementFailed
from bench.measurements import Measurements, Plan
from bench.servers import OURS, THEIRS, Server
from infra.local.stack import StackError
from shared.errors import RerankqError

COLD = "theirs, first start"
"""The first start compiles for the later ones. It is part of the results, but not of the verdict."""
_NO_CACHE = {"RERANKQ_SCORE_CACHE": "false"}
_CACHE = {"RERANKQ_SCORE_CACHE": "true"}
_CASES_WITH_OWN_SERVERS = {"a-engine", "i", "j"}


class Run:
    """One run of the benchmark. It writes to `folder`, which the caller removes."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._model = folder / "cross-encoder"
        self._tiny = folder / "tiny"
        self._eight_bits = folder / "eight-bits"
        self._language_model = folder / "language-model"
        self._began = time.monotonic()
        self._measurements = Measurements(plan, self._model, self._print)

    @property
    def measured(self) -> Measured:
        """The results so far."""
        return self._measurements.measured

    def run_all(self) -> None:
        """Measure all rounds of all cases. Raises MeasurementFailed when the model cannot be created."""
        self._measurements.where = "before round 1"
        self._print("creating the cross-encoder")
        models.make_cross_encoder(self._model, self._folder / "model.log")
        if self._cases_of(Setup.TINY):
            models.make_shape("one-layer", self._tiny, self._folder / "model.log")
        if self._cases_of(Setup.LANGUAGE_MODEL):
            models.make_shape("qwen3", self._language_model, self._folder / "model.log")
        if self._cases_of(Setup.EIGHT_BITS):
            models.quantize(self._model, self._eight_bits, self._folder / "model.log")
        if "h" in self._plan.cases:
            self._turn(COLD, self._theirs(Setup.SAME_DTYPE), self._first_start)
        for number in range(1, self._plan.rounds + 1):
            self._measurements.where = f"round {number} of {self._plan.rounds}"
            self._one_round()

    def _first_start(self, server: Server) -> None:
        self._measurements.record("h", COLD, server.first_score_seconds)

    def _one_round(self) -> None:
        cases = set(self._plan.cases)
        if self._cases_of(Setup.SAME_DTYPE):
            self._turn(THEIRS, self._theirs(Setup.SAME_DTYPE), self._common_cases)
            self._turn(OURS, self._ours(Setup.SAME_DTYPE), self._common_cases)
        if "a-engine" in cases:
            with self._recording_failures(ENGINE, "a-engine"):
                self._measurements.bare_engine(self._folder)
        if "i" in cases:
            file = servers.models_file(models.bundled(), self._folder, servers.FLOAT32)
            for side, server in (
                (THEIRS, servers.theirs(models.bundled(), self._folder)),
                (OURS, servers.ours(None, _NO_CACHE | file)),
            ):
                self._turn(side, server, self._measurements.known_documents, "i")
        if "j" in cases:
            self._turn(OURS, servers.ours(self._model, _CACHE), self._measurements.repeated_request, "j")
        for setup in (Setup.TINY, Setup.SHIPPED, Setup.LANGUAGE_MODEL, Setup.EIGHT_BITS):
            self._compare(setup)

    def _compare(self, setup: Setup) -> None:
        """Measure the cases of one setup on each side that they compare."""
        names = self._cases_of(setup)
        with_theirs = [name for name in names if CASES[name].against == THEIRS]
        with_onnx = [name for name in names if CASES[name].against == ONNX]
        if with_theirs:
            self._turn(THEIRS, self._theirs(setup), lambda server: self._plain_cases(server, with_theirs))
        if names:
            self._turn(OURS, self._ours(setup), lambda server: self._plain_cases(server, names))
        if uncached := [name for name in names if CASES[name].against == UNCACHED]:
            server = self._ours(setup, {"enable_prefix_caching": False})
            self._turn(UNCACHED, server, lambda server: self._plain_cases(server, uncached, UNCACHED))
        if with_onnx:
            with self._recording_failures(ONNX, ", ".join(with_onnx)):
                self._measurements.onnx(self._folder, with_onnx)

    def _cases_of(self, setup: Setup) -> list[str]:
        return [name for name in self._plan.cases if CASES[name].setup is setup and name not in _CASES_WITH_OWN_SERVERS]

    def _theirs(self, setup: Setup) -> AbstractContextManager[Server]:
        arguments = {} if setup is Setup.SHIPPED else servers.FLOAT32
        return servers.theirs(self._model_of(setup), self._folder, arguments)

    def _ours(
        self, setup: Setup, arguments: Mapping[str, Any] = MappingProxyType({})
    ) -> AbstractContextManager[Server]:
        if setup in (Setup.SHIPPED, Setup.EIGHT_BITS):
            return servers.ours(self._model_of(setup), _NO_CACHE)
        of_model = models.LANGUAGE_MODEL_ARGUMENTS if setup is Setup.LANGUAGE_MODEL else {}
        chosen = {**servers.FLOAT32, **of_model, **arguments}
        file = servers.models_file(self._model_of(setup), self._folder, chosen)
        return servers.ours(None, _NO_CACHE | file)

    def _model_of(self, setup: Setup) -> Path:
        own = {
            Setup.TINY: self._tiny,
            Setup.EIGHT_BITS: self._eight_bits,
            Setup.LANGUAGE_MODEL: self._language_model,
        }
        return own.get(setup, self._model)

    def _common_cases(self, server: Server) -> None:
        if "h" in self._plan.cases:
            self._measurements.record("h", server.name, server.first_score_seconds)
        self._plain_cases(server, self._cases_of(Setup.SAME_DTYPE))
        if "l" in self._plan.cases:
            with self._recording_failures(server.name, "l"):
                self._measurements.sweep(server)
        # This case comes last: the work that it leaves in the queue ends with the server.
        if "g" in self._plan.cases:
            with self._recording_failures(server.name, "g"):
                self._measurements.behind_backlog(server)

    def _plain_cases(self, server: Server, names: Sequence[str], side: str = "") -> None:
        """Measure those of the cases that are one load each."""
        for name in names:
            if CASES[name].shape is not None:
                with self._recording_failures(server.name, name):
                    self._measurements.plain(server, name, side)

    def _turn(
        self,
        side: str,
        server: AbstractContextManager[Server],
        cases: Callable[[Server], None],
        name: str = "the server",
    ) -> None:
        """Start a server, measure its cases and stop it."""
        with self._recording_failures(side, name):
            self._print(f"{side}: starting")
            with server as running:
                cases(running)

    @contextmanager
    def _recording_failures(self, side: str, name: str) -> Iterator[None]:
        """Record a failure inside the block instead of raising it."""
        try:
            yield
        except (MeasurementFailed, StackError, RerankqError, OSError) as error:
            self.measured.failures.append(f"{self._measurements.where}: {side}, {name}: {error}")
            self._print(f"{side}, {name}: FAILED: {error}")

    def _print(self, message: str) -> None:
        print(
            f"[{time.monotonic() - self._began:4.0f} s] {self._measurements.where}: {message}",
            file=sys.stderr,
            flush=True,
        )
