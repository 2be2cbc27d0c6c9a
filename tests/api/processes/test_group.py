import multiprocessing
import os
import signal

from api.processes.group import GroupLock, ProcessGroup

FORK = multiprocessing.get_context("fork")


def in_process(run: object) -> int:
    """The exit status of a forked process that runs this."""
    process = FORK.Process(target=run)  # type: ignore[arg-type]
    process.start()
    process.join(30)
    assert process.exitcode is not None
    return process.exitcode


class TestMemory:
    def test_each_process_writes_its_own_part_and_all_see_it(self) -> None:
        group = ProcessGroup(2)
        numbers = group.shared_numbers(3)

        def write() -> None:
            group.join(1)
            numbers[group.number][2] = 0.25

        assert in_process(write) == 0
        assert [part.tolist() for part in numbers] == [[0, 0, 0], [0, 0, 0.25]]

    def test_pids_are_those_of_the_processes_that_have_joined(self) -> None:
        group = ProcessGroup(3)
        assert group.pids == []
        assert in_process(lambda: group.join(2)) == 0
        group.join(0)
        assert group.pids[0] == os.getpid()
        assert len(group.pids) == 2


class TestLock:
    def test_one_process_at_a_time_holds_it(self) -> None:
        lock = GroupLock()
        assert lock.acquire()
        assert lock.acquire(), "the holder may ask again"
        assert in_process(lambda: os._exit(lock.acquire())) == 0
        lock.release()
        assert in_process(lambda: os._exit(lock.acquire())) == 1

    def test_a_killed_process_releases_it(self) -> None:
        lock = GroupLock()

        def acquire_and_die() -> None:
            if lock.acquire():
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_process(acquire_and_die) == -signal.SIGKILL
        assert lock.acquire()
