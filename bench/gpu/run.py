"""The steps of the GPU benchmark. Each one starts what it measures, and stops it before the next one starts.

A step that does not fit into the time that is left is skipped, and a load of a server too; a failed step does not end
the others. Every result, skip and failure is a line.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, models, servers
from bench.cases import ENGINE, Measured
from bench.generator import ROOT, MeasurementFailed, bare_engine, run_program
from bench.gpu.cases import (
    CASES,
    ENGINE_LOADS,
    FIRST_START,
    LATER_START,
    SERVICE_CASES,
    SHARE,
    Lines,
    share_of_rate,
)
from bench.gpu.deadline import Deadline, DeadlineReached
from bench.measurements import Measurements, Plan
from bench.servers import OURS, THEIRS, Server
from infra.local.stack import StackError
from shared.errors import RerankqError

STEPS = ("theirs", "ours", "our-engine", "vllm-engine", "starts")
_LOAD_OVERHEAD_SECONDS = 5.0
"""Of one load: the start of its generator, the warm-up and the last responses."""
_PAIRS_AT_ONCE = 4096
_MATRIX_SIZE = 8192


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a run does: the model, the engine arguments of both sides, and the seconds that a step takes at least.

    `seconds` is the length of one load.
    """

    model: str
    engine_args: Mapping[str, Any]
    seconds: float
    start_seconds: float


def sizes(small: bool, seconds: float, engine_args: Mapping[str, Any]) -> Sizes:
    """Return the sizes for a GPU, or those of a trial on a CPU. `seconds` 0 means the default."""
    if small:
        # Compiling would take most of the trial.
        arguments = {"dtype": "float32", "enforce_eager": True}
        return Sizes("xlm-roberta-small", arguments | dict(engine_args), seconds or 0.5, start_seconds=6.0)
    # On a GPU the share is vLLM's own default; without it the server would get the one that CPUs need.
    arguments = {"dtype": "bfloat16", "gpu_memory_utilization": 0.9}
    return Sizes("xlm-roberta-large", arguments | dict(engine_args), seconds or 4.0, start_seconds=25.0)


class GpuRun:
    """One run. It writes to `folder`, which the caller removes."""

    def __init__(self, chosen: Sizes, folder: Path, lines: Lines, deadline: Deadline, seed: int = 1) -> None:
        self.device: dict[str, Any] = {}
        self._sizes = chosen
        self._folder = folder
        self._lines = lines
        self._deadline = deadline
        self._seed = seed
        self._began = time.monotonic()
        self._model = folder / chosen.model
        plan = Plan(list(SERVICE_CASES), rounds=1, seconds=chosen.seconds, backlog=0, seed=seed)
        self._measurements = Measurements(plan, self._model, self._tell, CASES)

    @property
    def measured(self) -> Measured:
        """The results so far."""
        return self._measurements.measured

    def prepare(self, require_cuda: bool) -> None:
        """Measure the device and create the model. Raises MeasurementFailed, also without a CUDA device."""
        self._tell("measuring the device's matrix rate")
        order = {"dtype": self._sizes.engine_args["dtype"], "size": _MATRIX_SIZE}
        log = self._folder / "device.log"
        found = run_program("bench.gpu.matrix_rate", order, dict(os.environ), log, self._deadline.left())
        if require_cuda and not found["cuda"]:
            raise MeasurementFailed("PyTorch finds no CUDA device; `--small` tries the benchmark on a CPU")
        self.device = found | {"name": found["name"] or machine.describe()["cpu"]}
        self._lines.write("device", **self.device, versions=machine.versions())
        self._tell(f"creating {self._sizes.model}")
        self._made = models.make_shape(self._sizes.model, self._model, self._folder / "model.log")
        self._lines.write("model", shape=self._sizes.model, parameters=self._made.parameters)

    def run(self, steps: Sequence[str], rounds: int) -> None:
        """Run the steps, in their order, as far as the time allows. The two servers take turns in `rounds` rounds."""
        todo: list[tuple[str, float, Callable[[], None]]] = []
        for number in range(1, rounds + 1):
            todo += [
                ("theirs", self._serving_seconds, partial(self._serve, THEIRS, number)),
                ("ours", self._serving_seconds, partial(self._serve, OURS, number)),
            ]
        todo += [
            ("our-engine", self._engine_seconds(len(ENGINE_LOADS)), self._our_engine),
            ("vllm-engine", self._engine_seconds(2), self._vllm_engine),
            ("starts", 2 * self._sizes.start_seconds, self._later_starts),
        ]
        for name, least, step in todo:
            if name not in steps:
                continue
            if (left := self._deadline.left()) < least:
                self._skip(name, f"{max(left, 0.0):.0f} s are left; it takes at least {least:.0f} s")
            else:
                self._step(name, step)

    def _step(self, name: str, step: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            with self._deadline.enforced():
                step()
        except DeadlineReached:
            self._skip(name, "the time ended before the step did")
        except (MeasurementFailed, StackError, RerankqError, OSError) as error:
            self.measured.failures.append(f"{name}: {error}")
            self._lines.write("failed", step=name, error=str(error))
            self._tell(f"{name}: FAILED: {error}")
        self._lines.write("took", step=name, seconds=round(time.monotonic() - began, 1))

    @property
    def _serving_seconds(self) -> float:
        return self._sizes.start_seconds + self._sizes.seconds + _LOAD_OVERHEAD_SECONDS

    def _engine_seconds(self, loads: int) -> float:
        return self._sizes.start_seconds + loads * self._sizes.seconds

    def _serve(self, side: str, number: int) -> None:
        """Start a server and measure all cases on it."""
        with self._server(side) as server:
            self._measurements.where = f"round {number}"
            # Later rounds find compiled code.
            self._record_start(FIRST_START if number == 1 else LATER_START, server)
            for case in SERVICE_CASES:
                if (left := self._deadline.left()) < self._sizes.seconds + _LOAD_OVERHEAD_SECONDS:
                    self._skip(f"{side}, {case}", f"{left:.0f} s are left")
                    continue
                try:
                    self._measurements.plain(server, case)
                except MeasurementFailed as error:
                    self.measured.failures.append(f"{side}, {case}: {error}")
                    self._lines.write("failed", step=side, case=case, error=str(error))
                    continue
                self._lines.write("load", **self.measured.loads[-1])
            if side == OURS and (rates := self.measured.values_of("a", OURS)):
                self._share("service share", rates[-1])

    def _later_starts(self) -> None:
        """Start both servers again, with the compiled code of their first starts."""
        for side in (THEIRS, OURS):
            with self._server(side) as server:
                self._record_start(LATER_START, server)

    def _server(self, side: str) -> AbstractContextManager[Server]:
        folder = self._folder / side
        folder.mkdir(exist_ok=True)
        self._tell(f"{side}: starting")
        if side == THEIRS:
            return servers.theirs(self._model, folder, self._sizes.engine_args)
        return servers.ours(None, self._our_variables(folder))

    def _our_variables(self, folder: Path) -> dict[str, str]:
        # Packages that are found through PYTHONPATH, as on a machine where nothing can be installed, stay found.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return servers.models_file(self._model, folder, self._sizes.engine_args) | {
            "RERANKQ_SCORE_CACHE": "false",
            "VLLM_CACHE_ROOT": str(folder / "vllm-cache"),
            "PYTHONPATH": path,
        }

    def _record_start(self, case: str, server: Server) -> None:
        self._measurements.record(case, server.name, server.first_score_seconds)
        self._lines.write("start", case=case, server=server.name, seconds=round(server.first_score_seconds, 2))

    def _our_engine(self) -> None:
        order = self._engine_order() | {"loads": list(ENGINE_LOADS.values())}
        log = self._folder / "our-engine.log"
        variables = servers.environment(self._folder / OURS)
        found = run_program("bench.gpu.our_engine", order, variables, log, max(self._deadline.left(), 1.0))
        for (name, (_, _, words)), each in zip(ENGINE_LOADS.items(), found, strict=True):
            self._engine_result(name, OURS, words, each["pairs"] / each["seconds"])
        self._share(SHARE, self.measured.values_of("engine 20 x 100", OURS)[-1])

    def _vllm_engine(self) -> None:
        words = sorted({words for _, _, words in ENGINE_LOADS.values()})
        order = self._engine_order() | {"words": words, "first": 0, "pairs_at_once": _PAIRS_AT_ONCE}
        log = self._folder / "vllm-engine.log"
        found = bare_engine(order, servers.environment(self._folder / OURS), log)
        rates = {length: speed.pairs_per_second for length, speed in zip(words, found, strict=True)}
        for name, (_, _, length) in ENGINE_LOADS.items():
            # LLM.score knows pairs, not requests: only the length of a document differs.
            self._engine_result(name, ENGINE, length, rates[length])
        self._measurements.record("a-engine", ENGINE, rates[100])

    def _engine_order(self) -> dict[str, Any]:
        (self._folder / OURS).mkdir(exist_ok=True)
        arguments = dict(self._sizes.engine_args)
        return {
            "model": str(self._model),
            "engine_args": arguments,
            "seconds": self._sizes.seconds,
            "seed": self._seed,
        }

    def _engine_result(self, name: str, side: str, words: int, rate: float) -> None:
        self._measurements.record(name, side, rate)
        share = share_of_rate(self._made, words, rate, self.device["matrix_tflops"])
        self._lines.write(
            "engine", case=name, side=side, pairs_per_second=round(rate, 1), percent_of_matrix_rate=round(share, 2)
        )

    def _share(self, case: str, pairs_per_second: float) -> None:
        """Record the share of the matrix rate for pairs of 100 words."""
        share = share_of_rate(self._made, 100, pairs_per_second, self.device["matrix_tflops"])
        self._measurements.record(case, OURS, share)
        self._lines.write("share", case=case, percent_of_matrix_rate=round(share, 2))

    def _skip(self, what: str, reason: str) -> None:
        self._lines.write("skipped", step=what, reason=reason)
        self._tell(f"{what}: skipped: {reason}")

    def _tell(self, message: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {message}", file=sys.stderr, flush=True)
