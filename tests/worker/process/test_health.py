import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

import worker.process.health
from shared.keys import pool_keys
from shared.pools.heartbeats import STALE_SECONDS, HeartbeatWriter, WorkerState, read_heartbeats
from shared.store.client import connect
from tests.shared.support import MODEL, dead_redis_url
from tests.worker.support import wait_until
from worker.dispatch.throughput import ThroughputMeter
from worker.process.health import HeartbeatThread, is_ready_here, main

ME = "host-1"


@pytest.fixture
def writer(redis_client: Any) -> HeartbeatWriter:
    return HeartbeatWriter(redis_client, MODEL, ME)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.process.health, "INTERVAL_SECONDS", 0.02)


def beats(client: Any) -> dict[str, tuple[WorkerState, str]]:
    return {
        beat.worker: (beat.state, beat.reason) for beat in read_heartbeats(client.hgetall(pool_keys.workers(MODEL)))
    }


def leave_behind(client: Any, name: str, state: str, age: float) -> None:
    beat = {"worker": name, "state": state, "at": time.time() - age, "reason": ""}
    client.hset(pool_keys.workers(MODEL), name, json.dumps(beat))


class TestHeart:
    def test_a_worker_is_starting_then_ready_then_gone(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        heart = HeartbeatThread(writer)
        heart.start()
        assert beats(redis_client) == {ME: (WorkerState.STARTING, "")}
        heart.ready()
        assert beats(redis_client) == {ME: (WorkerState.READY, "")}
        heart.leave()
        assert beats(redis_client) == {}

    def test_a_worker_that_could_not_start_leaves_the_reason(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        heart = HeartbeatThread(writer)
        heart.start()
        heart.fail("the weights are not there")
        assert beats(redis_client) == {ME: (WorkerState.FAILED, "the weights are not there")}

    def test_a_ready_worker_clears_away_what_others_left_behind(
        self, writer: HeartbeatWriter, redis_client: Any
    ) -> None:
        leave_behind(redis_client, "failed", "failed", 1)
        leave_behind(redis_client, "killed", "ready", STALE_SECONDS + 1)
        leave_behind(redis_client, "busy", "ready", 1)
        heart = HeartbeatThread(writer)
        heart.start()
        assert set(beats(redis_client)) == {ME, "failed", "killed", "busy"}
        heart.ready()
        assert set(beats(redis_client)) == {ME, "busy"}
        heart.leave()

    def test_a_worker_that_drains_says_so_before_its_next_beat(
        self, writer: HeartbeatWriter, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker.process.health, "INTERVAL_SECONDS", 600.0)
        heart = HeartbeatThread(writer)
        heart.start()
        heart.ready()
        heart.drain()
        wait_until(lambda: beats(redis_client) == {ME: (WorkerState.DRAINING, "")})
        heart.leave()
        assert beats(redis_client) == {}

    def test_it_says_how_much_it_has_in_hand_and_how_fast_it_is(
        self, writer: HeartbeatWriter, redis_client: Any
    ) -> None:
        heart = HeartbeatThread(writer)
        heart.throughput = ThroughputMeter(iter([0.0, 0.0, 2.0, 2.0, 2.0]).__next__)
        heart.throughput.shard_started(1000)
        heart.throughput.shard_ended(1000, scored=True)
        heart.throughput.shard_started(10)
        heart.ready()
        (beat,) = read_heartbeats(redis_client.hgetall(pool_keys.workers(MODEL)))
        assert (beat.held, beat.tokens_per_second) == (1, 500.0)

    @pytest.mark.usefixtures("fast")
    def test_it_beats_until_it_stops(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        heart = HeartbeatThread(writer)
        heart.start()
        for _ in range(250):
            redis_client.delete(pool_keys.workers(MODEL))
            time.sleep(0.04)
            if beats(redis_client):
                break
        else:
            raise AssertionError("no second beat")
        heart.leave()
        time.sleep(0.1)
        assert beats(redis_client) == {}

    @pytest.mark.usefixtures("fast")
    def test_a_redis_that_is_away_is_no_reason_to_die(self, caplog: pytest.LogCaptureFixture) -> None:
        with connect(dead_redis_url()) as client, caplog.at_level(logging.WARNING):
            heart = HeartbeatThread(HeartbeatWriter(client, MODEL, ME))
            heart.start()
            heart.ready()
            time.sleep(0.3)
            heart.leave()
        assert len([record for record in caplog.records if "heartbeats cannot be written" in record.message]) == 1

    def test_a_failure_is_told_although_nobody_hears_it(self) -> None:
        with connect(dead_redis_url()) as client:
            heart = HeartbeatThread(HeartbeatWriter(client, MODEL, ME))
            heart.start()
            heart.fail("the weights are not there")


class TestTheStartsShare:
    """Of a wait that ends now."""

    def test_before_it_is_ready_it_tells_nothing(self, writer: HeartbeatWriter) -> None:
        assert HeartbeatThread(writer).start_ms(5000.0) == 0.0

    def test_it_is_what_passed_before_the_worker_was_ready(self, writer: HeartbeatWriter) -> None:
        heart = HeartbeatThread(writer)
        heart.ready()
        assert 3000 < heart.start_ms(5000.0) <= 5000
        time.sleep(0.05)
        assert heart.start_ms(50.0) == 0.0

    def test_where_another_worker_was_ready_before_that_one_counts(
        self, writer: HeartbeatWriter, redis_client: Any
    ) -> None:
        for name, state, seconds in (("first", "ready", 60), ("coming", "starting", 900), ("gone", "failed", 900)):
            beat = {"worker": name, "state": state, "at": time.time(), "ready_at": time.time() - seconds}
            redis_client.hset(pool_keys.workers(MODEL), name, json.dumps(beat))
        heart = HeartbeatThread(writer)
        heart.ready()
        assert heart.start_ms(50_000.0) == 0.0
        assert 8000 < heart.start_ms(70_000.0) <= 10_000

    def test_a_clock_that_is_ahead_makes_nobody_ready_later(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        beat = {"worker": "other", "state": "ready", "at": time.time(), "ready_at": time.time() + 3600}
        redis_client.hset(pool_keys.workers(MODEL), "other", json.dumps(beat))
        heart = HeartbeatThread(writer)
        heart.ready()
        assert heart.start_ms(5000.0) <= 5000


class TestCheckFromOutside:
    def test_a_host_is_ready_when_one_of_its_workers_is(self, redis_client: Any) -> None:
        leave_behind(redis_client, "host-1", "starting", 0)
        assert not is_ready_here(redis_client, MODEL, "host")
        leave_behind(redis_client, "host-2", "ready", 0)
        assert is_ready_here(redis_client, MODEL, "host")

    @pytest.mark.parametrize(
        ("name", "state", "age"),
        [
            ("other-1", "ready", 0),
            ("host-1", "ready", STALE_SECONDS),
            ("host-1", "failed", 0),
            ("hostage-1", "ready", 0),
        ],
    )
    def test_nobody_else_counts(self, redis_client: Any, name: str, state: str, age: float) -> None:
        leave_behind(redis_client, name, state, age)
        assert not is_ready_here(redis_client, MODEL, "host")

    def test_a_host_whose_name_begins_the_same_does_not_count_either(self, redis_client: Any) -> None:
        leave_behind(redis_client, "host-b-77", "ready", 0)
        assert not is_ready_here(redis_client, MODEL, "host")

    @pytest.mark.parametrize(("state", "status", "said"), [("ready", 0, "ready\n"), ("starting", 1, "not ready\n")])
    def test_a_container_asks_by_exit_status(
        self,
        redis_url: str,
        redis_client: Any,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        state: str,
        status: int,
        said: str,
    ) -> None:
        models = tmp_path / "models.yaml"
        models.write_text(f"models: [{{name: {MODEL}}}]")
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("RERANKQ_MODELS_FILE", str(models))
        monkeypatch.setattr("socket.gethostname", lambda: "host")
        leave_behind(redis_client, "host-1", state, 0)
        assert main() == status
        assert capsys.readouterr().out == said
