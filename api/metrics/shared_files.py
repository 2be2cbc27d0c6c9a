"""The folder through which the API's processes, and its batch runner, share what they count.

prometheus-client keeps the values of each process in memory-mapped files. Here a file belongs to a number in the group
of processes, not to a process id, so that the successor of a process that died continues its counts.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import prometheus_client.values
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from api.processes.group import ProcessGroup

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client's own; the batch runner inherits it."""
_PREFIX = "rerankq-metrics-"
_LOCK = "lock"
_MEMORY = Path("/dev/shm")
RUNNER = "runner"


@contextmanager
def shared_folder(group: ProcessGroup) -> Iterator[Path]:
    """Share counts in a new folder, in memory where possible, during the block. Removes folders of killed processes.

    Create the counters after this, and before the processes of the group are forked.
    """
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    # The processes of the group inherit the lock. It is released when the last of them has ended.
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.environ[_VARIABLE] = str(folder)
    before = prometheus_client.values.ValueClass
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: group.number
    )
    try:
        yield folder
    finally:
        prometheus_client.values.ValueClass = before
        os.environ.pop(_VARIABLE, None)
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def join_as_runner() -> bool:
    """Share counts with the API that started this batch runner. Returns whether one did.

    Create the counters after this.
    """
    if shared := _VARIABLE in os.environ:
        prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(  # type: ignore[no-untyped-call]
            lambda: RUNNER
        )
    return shared


def shared_registry() -> CollectorRegistry | None:
    """A registry with the sums over all processes; None when this process shares nothing."""
    if (folder := os.environ.get(_VARIABLE)) is None:
        return None
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders whose processes have all ended without removing them."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
