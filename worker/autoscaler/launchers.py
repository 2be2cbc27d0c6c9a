"""Launchers carry out the autoscaler's decisions: as local processes, or not at all where another system scales.

Owns how workers are started, watched, reaped and killed. Refuses to decide when. All methods must be called on one
thread that lives as long as the process: see shared.processes.spawn.
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

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """The end of a worker process; `status` as in subprocess.Popen.returncode."""

    worker: WorkerProcess
    status: int


class Launcher(Protocol):
    """Starts and stops workers. `acts` is false when it only observes, because another system starts and stops them."""

    acts: bool

    def workers(self, model: str) -> list[WorkerProcess]:
        """This launcher's workers of the model that have not ended, including those that are stopping."""

    def start(self, spec: ModelSpec) -> None:
        """Start a worker of the model. Raises OSError."""

    def reap(self) -> list[WorkerExit]:
        """Check all processes, and return those that have ended since the last call. Never blocks."""

    def close(self, forced: Callable[[], bool]) -> list[WorkerExit]:
        """Stop every worker and return their exits. Kills the remaining ones once `forced` returns true."""


class ObserveOnlyLauncher:
    """Starts and stops nothing, for pools that another system scales (for example KEDA)."""

    acts = False

    def workers(self, model: str) -> list[WorkerProcess]:
        return []

    def start(self, spec: ModelSpec) -> None:
        """Does nothing."""

    def reap(self) -> list[WorkerExit]:
        return []

    def close(self, forced: Callable[[], bool]) -> list[WorkerExit]:
        return []


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How workers are started.

    `devices` are the GPUs for workers, each in the notation of CUDA_VISIBLE_DEVICES. When it is empty, workers inherit
    the environment unchanged. Workers of `standby_models` come from a standby that has imported `standby_engines`.
    """

    environment: Mapping[str, str]
    devices: Sequence[str] = ()
    standby_models: frozenset[str] = frozenset()
    standby_engines: Sequence[str] = ()


def gpus_per_worker(spec: ModelSpec) -> int:
    """How many GPUs one worker of the model spans."""
    sizes = (spec.engine_args.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    return math.prod(size for size in sizes if isinstance(size, int))


class LocalLauncher:
    """Runs workers as child processes on this machine. They end when this process ends."""

    acts = True

    def __init__(self, options: LaunchOptions, announce: Callable[[str], None]) -> None:
        """`announce` receives messages for the operator, mostly about the standby."""
        self._options = options
        self._announce = announce
        self._workers: list[WorkerProcess] = []
        # So that this process can wait for workers that a standby forks, and for children of dead workers.
        adopt_orphans()
        self._standby = StandbyManager(options.standby_engines, options.environment, announce)
        self._standby.check()

    def workers(self, model: str) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.model == model]

    def start(self, spec: ModelSpec) -> None:
        devices = self._allocate_devices(gpus_per_worker(spec))
        output = WorkerOutput()
        try:
            process = self._start_process(spec.name, devices, output)
        except OSError:
            output.close()
            raise
        output.close_write_end()
        self._workers.append(WorkerProcess(spec.name, process, output, devices))

    def reap(self) -> list[WorkerExit]:
        self._standby.check()
        for worker in list(self._workers):
            worker.forward_output()
            if isinstance(worker.process, ForkedProcess) and worker.process.failed:
                self._restart_without_standby(worker)
            elif worker.stopping_since is not None:
                # The first request had no effect if the worker had no process then.
                worker.request_stop()
        exits = [
            WorkerExit(worker, status) for worker in self._workers if (status := worker.process.poll()) is not None
        ]
        for end in exits:
            self._forget(end.worker)
        self._reap_orphans()
        return exits

    def close(self, forced: Callable[[], bool]) -> list[WorkerExit]:
        self._standby.close()
        for worker in self._workers:
            worker.request_stop()
        exits = self.reap()
        while self._workers:
            if forced():
                for worker in self._workers:
                    worker.kill()
            time.sleep(_POLL_SECONDS)
            exits += self.reap()
        return exits

    def _start_process(
        self, model: str, devices: Sequence[str], output: WorkerOutput, *, use_standby: bool = True
    ) -> ProcessHandle:
        """Raises OSError."""
        arguments = ["--model", model]
        changes = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
        standby = self._standby.current
        if standby is not None and use_standby and model in self._options.standby_models:
            # Sending fails when a hanging standby has let its socket fill up. A start without it is faster then.
            with suppress(OSError):
                return standby.fork(arguments, output, changes)
        command = [sys.executable, "-m", "worker", *arguments]
        return spawn(command, output.write_end, {**self._options.environment, **changes})

    def _restart_without_standby(self, worker: WorkerProcess) -> None:
        """Start a worker that the standby could not fork; drop it if it is stopping or cannot be started."""
        if worker.stopping_since is None:
            output = WorkerOutput()
            try:
                worker.process = self._start_process(worker.model, worker.devices, output, use_standby=False)
            except OSError as error:
                output.close()
                self._announce(f"a worker could not be started: {error}")
            else:
                output.close_write_end()
                worker.output.close()
                worker.output = output
                return
        self._workers.remove(worker)
        worker.output.close()

    def _allocate_devices(self, count: int) -> tuple[str, ...]:
        """`count` free devices; none when no devices are configured. Raises OSError when too few are free."""
        if not self._options.devices:
            return ()
        used = {device for worker in self._workers for device in worker.devices}
        free = [device for device in self._options.devices if device not in used]
        if len(free) < count:
            raise OSError(f"it needs {count} GPUs, and {len(free)} of {len(self._options.devices)} are free")
        return tuple(free[:count])

    def _forget(self, worker: WorkerProcess) -> None:
        """Remove a worker that has ended, with its remaining children and its output."""
        self._workers.remove(worker)
        if worker.process.pid is not None:
            # Processes that the worker started must not outlive it.
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
        worker.forward_output()
        worker.output.close()

    def _reap_orphans(self) -> None:
        """Wait for adopted processes that have ended: those that ended workers had started."""
        standby = self._standby.current
        if standby is not None and standby.has_pending_forks:
            # An ended child may be a worker whose pid the standby has not reported yet.
            return
        known = {worker.process.pid for worker in self._workers} | ({standby.pid} if standby is not None else set())
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in known:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)
