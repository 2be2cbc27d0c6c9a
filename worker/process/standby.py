"""`python -m worker.process.standby`: imports what a worker needs, and forks workers on request.

Owns an imported engine. Refuses to hold a model, a connection, a device or a second thread: a process with any of
these cannot be forked safely. It reads one socket, shared with the launcher, and ends when the launcher closes it. A
forked worker becomes a child of the launcher, which waits for it and stops it like any other; it does not depend on the
standby.

Messages are JSON, one per packet. To the standby, together with the file descriptor for the worker's output:
    {"id": N, "arguments": ["--model", "x"], "environment": {...}}
From it: {"ready": seconds, "bytes": resident} or {"refused": reason} once, then for each worker {"id": N, "pid": P}
or {"id": N, "failed": reason}.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shared.processes import die_with_parent
from worker.__main__ import end as end_as_worker
from worker.engines.base import EngineStartError
from worker.engines.registry import ENGINES, holds_device, import_engine
from worker.process.startup import deferred_gc, process_age

MESSAGE_BYTES = 1 << 17
_ADOPTION_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m worker.process.standby",
        description="Import what workers need, and fork workers on request of worker.autoscaler.",
    )
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of the launcher's socket")
    parser.add_argument("--engine", action="append", choices=ENGINES, default=[], help="engine to import; repeatable")
    options = parser.parse_args(arguments)
    with socket.socket(fileno=options.socket) as launcher:
        try:
            with deferred_gc():
                for engine in options.engine:
                    import_engine(engine)
            check_forkable()
        except EngineStartError as error:
            _send(launcher, {"refused": str(error)})
            return 1
        _send(launcher, {"ready": round(process_age(), 3), "bytes": resident_bytes()})
        worker = serve(launcher)
    if worker is not None:
        # This process is the forked child.
        end_as_worker(worker)
    return 0


def check_forkable() -> None:
    """Raises EngineStartError when this process has a second thread or holds a device."""
    tasks = _tasks()
    if threading.active_count() > 1 or len(tasks) > 1:
        names = ", ".join(sorted((task / "comm").read_text().strip() for task in tasks))
        raise EngineStartError(f"the imported modules have started threads ({names}); the process cannot be forked")
    if holds_device():
        raise EngineStartError("an imported module holds a device; the process cannot be forked")


def _tasks() -> list[Path]:
    """The process's threads according to the kernel, including those not started by Python."""
    return list(Path("/proc/self/task").iterdir())


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(launcher: socket.socket) -> list[str] | None:
    """Fork workers until the launcher closes its end, then return None. Returns the worker's arguments in a child."""
    adopter = os.getppid()
    while True:
        message, files, _, _ = socket.recv_fds(launcher, MESSAGE_BYTES, 1)
        if not message:
            return None
        request = json.loads(message)
        (output,) = files
        try:
            pid = _fork_orphan()
        except OSError as error:
            _send(launcher, {"id": request["id"], "failed": str(error)})
        else:
            if pid == 0:
                launcher.close()
                _become_worker(output, request["environment"], adopter)
                arguments: list[str] = request["arguments"]
                return arguments
            _send(launcher, {"id": request["id"], "pid": pid})
        os.close(output)


def _send(launcher: socket.socket, message: Mapping[str, object]) -> None:
    launcher.send(json.dumps(message).encode())


def _fork_orphan() -> int:
    """Fork a grandchild, whose parent exits at once. Returns 0 in the grandchild and its pid here. Raises OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        pid = -1
        with suppress(OSError):
            pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(write)
            return 0
        if pid > 0:
            os.write(write, pid.to_bytes(4, sys.byteorder))
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    packed_pid = os.read(read, 4)
    os.close(read)
    if not packed_pid:
        raise OSError("the child process cannot fork")
    return int.from_bytes(packed_pid, sys.byteorder)


def _become_worker(output: int, environment: Mapping[str, str], adopter: int) -> None:
    """Set up a forked worker as shared.processes.spawn does. Ends the process when the launcher does not adopt it."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.update(environment)
    deadline = time.monotonic() + _ADOPTION_SECONDS
    while os.getppid() != adopter and time.monotonic() < deadline:
        time.sleep(0.001)
    # Call it after the adoption: it applies to the parent at the time of the call.
    die_with_parent()
    if os.getppid() != adopter:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
