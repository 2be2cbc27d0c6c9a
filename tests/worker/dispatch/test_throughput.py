import pytest

from worker.dispatch.throughput import DECAY_SECONDS, MIN_BUSY_SECONDS, ThroughputMeter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """Simulates a worker with its own clock."""

    def __init__(self) -> None:
        self._clock = Clock()
        self.throughput = ThroughputMeter(self._clock)

    def wait(self, seconds: float) -> None:
        self._clock.now += seconds

    def work(self, tokens: int, seconds: float, *, at_once: int = 1, scored: bool = True) -> None:
        """Score `at_once` shards of this size concurrently, in this time."""
        for _ in range(at_once):
            self.throughput.shard_started(tokens)
        self.wait(seconds)
        for _ in range(at_once):
            self.throughput.shard_ended(tokens, scored=scored)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_there_is_no_estimate_before_the_first_shard(worker: Worker) -> None:
    worker.wait(60)
    assert worker.throughput.tokens_per_second() is None


def test_idle_time_does_not_count(worker: Worker) -> None:
    worker.work(1000, 2.0)
    worker.wait(3600)
    worker.work(1000, 2.0)
    assert worker.throughput.tokens_per_second() == pytest.approx(500)


def test_concurrent_shards_share_their_time(worker: Worker) -> None:
    worker.work(1000, 2.0, at_once=8)
    assert worker.throughput.tokens_per_second() == pytest.approx(4000)


def test_there_is_no_estimate_before_the_minimum_busy_time(worker: Worker) -> None:
    worker.work(1000, MIN_BUSY_SECONDS / 2)
    assert worker.throughput.tokens_per_second() is None
    worker.work(1000, MIN_BUSY_SECONDS / 2)
    assert worker.throughput.tokens_per_second() == pytest.approx(2000)


def test_a_shard_counts_only_after_its_end(worker: Worker) -> None:
    worker.throughput.shard_started(16_000)
    for _ in range(4):
        worker.wait(2.0)
        assert worker.throughput.tokens_per_second() is None
    worker.throughput.shard_ended(16_000, scored=True)
    assert worker.throughput.tokens_per_second() == pytest.approx(2000, rel=0.1)


def test_unscored_shards_add_time_but_no_tokens(worker: Worker) -> None:
    worker.work(1000, 2.0, scored=False)
    assert worker.throughput.tokens_per_second() is None
    worker.work(1000, 2.0)
    assert worker.throughput.tokens_per_second() == pytest.approx(250, rel=0.05)


def test_single_requests_after_a_burst_hardly_lower_the_estimate(worker: Worker) -> None:
    for _ in range(10):
        worker.work(1000, 1.0, at_once=50)
        worker.throughput.tokens_per_second()
    for _ in range(1000):
        worker.work(200, 0.02)
        worker.wait(1.0)
    slow = 200 / 0.02
    rate = worker.throughput.tokens_per_second()
    assert rate is not None
    assert 0.95 * 50_000 < rate < 50_000
    assert slow == 10_000


def test_a_burst_after_single_requests_raises_the_estimate_at_once(worker: Worker) -> None:
    for _ in range(1000):
        worker.work(200, 0.02)
    assert worker.throughput.tokens_per_second() == pytest.approx(10_000)
    worker.work(1000, 1.0, at_once=50)
    assert worker.throughput.tokens_per_second() == pytest.approx(50_000, rel=0.1)


def test_old_measurements_decay(worker: Worker) -> None:
    for _ in range(10):
        worker.work(1000, 1.0)
        worker.throughput.tokens_per_second()
    for _ in range(int(5 * DECAY_SECONDS)):
        worker.work(100, 1.0)
        worker.work(100, 1.0)
        worker.throughput.tokens_per_second()
    assert worker.throughput.tokens_per_second() == pytest.approx(100, rel=0.1)


def test_held_counts_the_shards_in_progress(worker: Worker) -> None:
    worker.throughput.shard_started(0)
    worker.throughput.shard_started(10)
    assert worker.throughput.held == 2
    worker.throughput.shard_ended(0, scored=True)
    assert worker.throughput.held == 1
