"""What the API's processes on one machine share: memory and a lock, inherited when they are forked."""

import fcntl
import mmap
import os
import weakref

_NUMBER_BYTES = 8


class ProcessGroup:
    """The processes that serve one address: `count` of them, and the `number` of this one, from 0.

    Create it before the processes are forked. Each process then calls `join`.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.number = 0
        self.runner_lock = GroupLock()
        self._pids = self.shared_numbers(1)

    def join(self, number: int) -> None:
        """Become the process with this number, possibly in place of one that has ended."""
        self.number = number
        self._pids[number][0] = os.getpid()

    @property
    def pids(self) -> list[int]:
        """The latest process of each number that has joined. It may have ended."""
        return [int(pid) for numbers in self._pids if (pid := numbers[0])]

    def shared_numbers(self, length: int) -> list["memoryview[float]"]:
        """For each process `length` zeros, which all of them see and only that process changes.

        They outlive the process: its successor continues with them. Call this before the processes are forked.
        """
        return [memoryview(mmap.mmap(-1, length * _NUMBER_BYTES)).cast("d") for _ in range(self.count)]


class GroupLock:
    """A lock that at most one process of the group holds. It is released when that process ends, however it ends."""

    def __init__(self) -> None:
        self._file = os.memfd_create("rerankq-lock")
        weakref.finalize(self, os.close, self._file)

    def acquire(self) -> bool:
        """Return whether this process holds the lock now. Does not wait."""
        try:
            # A record lock belongs to the process; flock would belong to all that inherited the descriptor.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)
