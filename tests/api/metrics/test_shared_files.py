"""Several processes count together."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from api.metrics import shared_files
from api.metrics.counts import ServiceCounts
from api.metrics.exposition import Exposition
from api.metrics.pools import StoreReadings
from api.metrics.shared_files import join_as_runner, shared_folder, shared_registry
from api.processes.group import ProcessGroup
from tests.api.metrics.support import samples

OK = "rerankq_http_requests_total route=/v1/rerank status=200"


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shared_files, "_MEMORY", tmp_path)
    return tmp_path


def in_killed_process(work: Callable[[], None]) -> None:
    """Run in a forked process, which is then killed."""

    def run() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def exposed(group: ProcessGroup) -> dict[str, float]:
    return samples(Exposition(CollectorRegistry(), group).render(StoreReadings(pools={}))[0])


def test_the_counts_of_all_processes_are_added_and_survive_them() -> None:
    group = ProcessGroup(2)
    with shared_folder(group):
        counts = ServiceCounts()

        def count_as(number: int, status: int) -> None:
            group.join(number)
            counts.response("/v1/rerank", 200, 0.1)
            counts.response("", status, 0.1)

        for number in (0, 1, 1):
            in_killed_process(partial(count_as, number, 404 + number))
        found = exposed(group)
    assert found[OK] == 3
    assert found["rerankq_http_requests_total route= status=404"] == 1
    assert found["rerankq_http_requests_total route= status=405"] == 2
    assert found["rerankq_http_request_duration_seconds_count route=/v1/rerank"] == 3


def test_the_successor_of_a_process_uses_its_files() -> None:
    group = ProcessGroup(1)
    with shared_folder(group) as folder:
        counts = ServiceCounts()
        for _ in range(3):
            in_killed_process(lambda: counts.response("/v1/rerank", 200, 0.1))
        assert sorted(path.name for path in folder.glob("counter*")) == ["counter_0.db"]


def test_the_batch_runner_counts_in_the_same_folder() -> None:
    group = ProcessGroup(1)
    with shared_folder(group):
        ServiceCounts().response("/v1/rerank", 200, 0.1)

        def run() -> None:
            join_as_runner()
            ServiceCounts().batch_rows("ok", 5)

        in_killed_process(run)
        found = exposed(group)
    assert found["rerankq_batch_rows_total outcome=ok"] == 5
    assert found[OK] == 1


def test_a_process_that_shares_nothing_has_its_own_counts() -> None:
    assert shared_registry() is None
    join_as_runner()
    registry = CollectorRegistry()
    ServiceCounts(registry).response("/v1/rerank", 200, 0.1)
    body, _ = Exposition(registry, ProcessGroup()).render(StoreReadings(pools={}))
    assert samples(body)[OK] == 1


def test_the_folder_is_removed_and_so_are_those_of_killed_services(memory: Path) -> None:
    abandoned = shared_folder(ProcessGroup())

    def enter() -> None:
        abandoned.__enter__()

    in_killed_process(enter)
    assert len(list(memory.iterdir())) == 1
    with shared_folder(ProcessGroup()) as first:
        assert list(memory.iterdir()) == [first]
        with shared_folder(ProcessGroup()) as second:
            assert sorted(memory.iterdir()) == sorted([first, second])
    assert list(memory.iterdir()) == []
