"""Finds the batch runners of a cluster among the processes of this machine."""

from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos.cluster import Cluster
from tests.chaos.fault_context import FaultContext

_COMMAND = ["-m", "api", "batches"]
_FIND_SECONDS = 20.0
_SETTLE_SECONDS = 0.2
_RENEWAL_SECONDS = 2.5
"""A runner renews its lease every second. Below the lease's lifetime, so that the paused runner keeps its batch."""


def find_runners(folder: Path) -> list[psutil.Process]:
    """The batch runners whose cluster has this folder."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[1:4] == _COMMAND and process.environ().get("TMPDIR") == str(folder):
                found.append(process)
    return found


def find_orphans(cluster: Cluster) -> list[int]:
    """The pids of the cluster's runners whose API process has ended."""
    apis = {slot.pid for slot in cluster.apis}
    orphans: list[int] = []
    for runner in find_runners(cluster.folder):
        with suppress(psutil.NoSuchProcess):
            if runner.ppid() not in apis:
                orphans.append(runner.pid)
    return orphans


def find_holder(context: FaultContext, batch_id: str) -> psutil.Process | None:
    """The runner that holds the lease of the batch; None if there is no runner for a long time.

    Of several runners, it is the one during whose pause the lease is not renewed.
    """
    folder = context.cluster.folder
    context.wait_until(lambda: bool(find_runners(folder)), _FIND_SECONDS)
    runners = find_runners(folder)
    for runner in runners[:-1]:
        if not _renews_while_paused(context, batch_id, runner):
            return runner
    return runners[-1] if runners else None


def has_ended(process: psutil.Process) -> bool:
    """Whether the process has ended, even if its parent has not noticed."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def _renews_while_paused(context: FaultContext, batch_id: str, runner: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        runner.suspend()
        try:
            # Redis may still execute a renewal that was sent before the pause.
            context.sleep(_SETTLE_SECONDS)
            before = _lease_ms(context, batch_id)
            return context.wait_until(lambda: _lease_ms(context, batch_id) > before, _RENEWAL_SECONDS)
        finally:
            runner.resume()
    return True


def _lease_ms(context: FaultContext, batch_id: str) -> int:
    return context.read(lambda: context.cluster.view.batch_lease_ms(batch_id))
