import pytest

from worker.dispatch.throughput import DECAY_SECONDS, MIN_BUSY_SECONDS, ThroughputMeter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """Does its work on a clock of its own."""

    def __init__(self) -> None:
        self._clock = Clock()
        self.throughput = ThroughputMeter(self._clock)

    def rest(self, seconds: float) -> None:
        self._clock.now += seconds

    def work(self, tokens: int, seconds: float, *, at_once: int = 1, scored: bool = True) -> None:
        """So many shards side by side, which are done together."""
        for _ in range(at_once):
            self.throughput.shard_started(tokens)
        self.rest(seconds)
        for _ in range(at_once):
            self.throughput.shard_ended(tokens, scored=scored)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_who_has_done_nothing_knows_nothing(worker: Worker) -> None:
    worker.rest(60)
    assert worker.throughput.tokens_per_second() is None


def test_it_is_what_was_scored_over_the_time_with_something_in_hand(worker: Worker) -> None:
    worker.work(1000, 2.0)
    worker.rest(3600)
    worker.work(1000, 2.0)
    assert worker.throughput.tokens_per_second() == pytest.approx(500)


def test_shards_side_by_side_are_done_in_the_same_time(worker: Worker) -> None:
    worker.work(1000, 2.0, at_once=8)
    assert worker.throughput.tokens_per_second() == pytest.approx(4000)


def test_nothing_is_said_of_less_than_a_second(worker: Worker) -> None:
    worker.work(1000, MIN_BUSY_SECONDS / 2)
    assert worker.throughput.tokens_per_second() is None
    worker.work(1000, MIN_BUSY_SECONDS / 2)
    assert worker.throughput.tokens_per_second() == pytest.approx(2000)


def test_a_long_shard_shows_something_only_when_it_is_done(worker: Worker) -> None:
    worker.throughput.shard_started(16_000)
    for _ in range(4):
        worker.rest(2.0)
        assert worker.throughput.tokens_per_second() is None
    worker.throughput.shard_ended(16_000, scored=True)
    assert worker.throughput.tokens_per_second() == pytest.approx(2000, rel=0.1)


def test_what_was_given_back_was_not_scored(worker: Worker) -> None:
    worker.work(1000, 2.0, scored=False)
    assert worker.throughput.tokens_per_second() is None
    worker.work(1000, 2.0)
    assert worker.throughput.tokens_per_second() == pytest.approx(250, rel=0.05)


def test_single_requests_after_a_burst_hardly_lower_it(worker: Worker) -> None:
    for _ in range(10):
        worker.work(1000, 1.0, at_once=50)
        worker.throughput.tokens_per_second()
    for _ in range(1000):
        worker.work(200, 0.02)
        worker.rest(1.0)
    slow = 200 / 0.02
    rate = worker.throughput.tokens_per_second()
    assert rate is not None
    assert 0.95 * 50_000 < rate < 50_000
    assert slow == 10_000


def test_a_burst_after_single_requests_shows_at_once(worker: Worker) -> None:
    for _ in range(1000):
        worker.work(200, 0.02)
    assert worker.throughput.tokens_per_second() == pytest.approx(10_000)
    worker.work(1000, 1.0, at_once=50)
    assert worker.throughput.tokens_per_second() == pytest.approx(50_000, rel=0.1)


def test_what_is_long_past_fades(worker: Worker) -> None:
    for _ in range(10):
        worker.work(1000, 1.0)
        worker.throughput.tokens_per_second()
    for _ in range(int(5 * DECAY_SECONDS)):
        worker.work(100, 1.0)
        worker.work(100, 1.0)
        worker.throughput.tokens_per_second()
    assert worker.throughput.tokens_per_second() == pytest.approx(100, rel=0.1)


def test_it_knows_how_many_shards_are_in_hand(worker: Worker) -> None:
    worker.throughput.shard_started(0)
    worker.throughput.shard_started(10)
    assert worker.throughput.held == 2
    worker.throughput.shard_ended(0, scored=True)
    assert worker.throughput.held == 1
