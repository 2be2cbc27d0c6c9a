"""Who acts on the autoscaler's decisions: processes of this machine, or nobody, because somebody else does.

Owns how workers are started, watched, reaped and ended; refuses to decide when. Everything here is called on one
thread, which lives as long as the process: see shared.processes.spawn.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from shared.models import ModelSpec
from shared.processes import adopt_orphans, spawn
from worker.autoscaler.standby_client import ForkedProcess, StandbyManager
from worker.autoscaler.worker_process import ProcessHandle, WorkerOutput, WorkerProcess

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker that is no more; `status` as subprocess has it."""

    worker: WorkerProcess
    status: int


class Launcher(Protocol):
    """Starts and stops workers, or leaves it to others: `acts` is false then."""

    acts: bool

    def workers(self, model: str) -> list[WorkerProcess]:
        """Its own that have not ended, those told to stop among them."""

    def start(self, spec: ModelSpec) -> None:
        """Start a worker of the model. Raises OSError."""

    def reap(self) -> list[WorkerExit]:
        """Look after the processes; answers those that have ended since. Never waits."""

    def close(self, hurry: Callable[[], bool]) -> list[WorkerExit]:
        """Stop every worker, by force once `hurry` says so; answers them."""


class ObserveOnlyLauncher:
    """Acts on nothing: whoever runs the workers (KEDA, say) decides for itself, and the log says what we would do."""

    acts = False

    def workers(self, model: str) -> list[WorkerProcess]:
        return []

    def start(self, spec: ModelSpec) -> None:
        """Leave it to others."""

    def reap(self) -> list[WorkerExit]:
        return []

    def close(self, hurry: Callable[[], bool]) -> list[WorkerExit]:
        return []


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How workers are started.

    `devices`: what there is for the workers, each as CUDA_VISIBLE_DEVICES names it; none: they take what they find.
    Workers of `standby_models` come from a standby that has imported `standby_engines`.
    """

    environment: Mapping[str, str]
    devices: Sequence[str] = ()
    standby_models: frozenset[str] = frozenset()
    standby_engines: Sequence[str] = ()


def devices_of(spec: ModelSpec) -> int:
    """How many GPUs one worker of the model takes."""
    sizes = (spec.engine_args.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    return math.prod(size for size in sizes if isinstance(size, int))


class LocalLauncher:
    """Workers as processes of this machine, which end with this one."""

    acts = True

    def __init__(self, ways: LaunchOptions, say: Callable[[str], None]) -> None:
        """`say` is told what becomes of the standby."""
        self._ways = ways
        self._say = say
        self._workers: list[WorkerProcess] = []
        # What a standby forks, and what an ended worker leaves behind, is ours to wait for.
        adopt_orphans()
        self._standby = StandbyManager(ways.standby_engines, ways.environment, say)
        self._standby.tend()

    def workers(self, model: str) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.model == model]

    def start(self, spec: ModelSpec) -> None:
        devices = self._free_devices(devices_of(spec))
        output = WorkerOutput()
        try:
            process = self._process_of(spec.name, devices, output)
        except OSError:
            output.close()
            raise
        output.hand_over()
        self._workers.append(WorkerProcess(spec.name, process, output, devices))

    def reap(self) -> list[WorkerExit]:
        self._standby.tend()
        for worker in list(self._workers):
            worker.pass_on_output()
            if isinstance(worker.process, ForkedProcess) and worker.process.lost:
                self._start_instead(worker)
            elif worker.stopping_since is not None:
                # A worker that had no process yet has not heard it.
                worker.request_stop()
        ended = [
            WorkerExit(worker, status) for worker in self._workers if (status := worker.process.poll()) is not None
        ]
        for end in ended:
            self._bury(end.worker)
        self._bury_strangers()
        return ended

    def close(self, hurry: Callable[[], bool]) -> list[WorkerExit]:
        self._standby.close()
        for worker in self._workers:
            worker.request_stop()
        ended = self.reap()
        while self._workers:
            if hurry():
                for worker in self._workers:
                    worker.kill()
            time.sleep(_LOOK_SECONDS)
            ended += self.reap()
        return ended

    def _process_of(
        self, model: str, devices: Sequence[str], output: WorkerOutput, *, plain: bool = False
    ) -> ProcessHandle:
        """Raises OSError."""
        arguments = ["--model", model]
        differences = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
        standby = self._standby.current
        if standby is not None and not plain and model in self._ways.standby_models:
            # Its socket is full when it has stopped reading: a start of our own is sooner then.
            with suppress(OSError):
                return standby.fork(arguments, output, differences)
        command = [sys.executable, "-m", "worker", *arguments]
        return spawn(command, output.write_end, {**self._ways.environment, **differences})

    def _start_instead(self, worker: WorkerProcess) -> None:
        """The standby has not forked this one, and will not."""
        if worker.stopping_since is None:
            output = WorkerOutput()
            try:
                worker.process = self._process_of(worker.model, worker.devices, output, plain=True)
            except OSError as error:
                output.close()
                self._say(f"a worker could not be started: {error}")
            else:
                output.hand_over()
                worker.output.close()
                worker.output = output
                return
        self._workers.remove(worker)
        worker.output.close()

    def _free_devices(self, count: int) -> tuple[str, ...]:
        """Raises OSError when there are too few."""
        if not self._ways.devices:
            return ()
        taken = {device for worker in self._workers for device in worker.devices}
        free = [device for device in self._ways.devices if device not in taken]
        if len(free) < count:
            raise OSError(f"it needs {count} GPUs, and {len(free)} of {len(self._ways.devices)} are free")
        return tuple(free[:count])

    def _bury(self, worker: WorkerProcess) -> None:
        """Forget a worker that has ended, after its last words."""
        self._workers.remove(worker)
        if worker.process.pid is not None:
            # What it had started itself must not live on.
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
        worker.pass_on_output()
        worker.output.close()

    def _bury_strangers(self) -> None:
        """Reap the orphans that became ours: what ended workers had started."""
        standby = self._standby.current
        if standby is not None and standby.waited_for:
            # It might be a worker of which nobody has told us yet.
            return
        ours = {worker.process.pid for worker in self._workers} | ({standby.pid} if standby is not None else set())
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in ours:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)
