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
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.process.health, "INTERVAL_SECONDS", 0.02)


def heartbeats(client: Any) -> dict[str, tuple[WorkerState, str]]:
    return {
        beat.worker: (beat.state, beat.reason) for beat in read_heartbeats(client.hgetall(pool_keys.workers(MODEL)))
    }


def write_heartbeat(client: Any, name: str, state: str, age: float) -> None:
    beat = {"worker": name, "state": state, "at": time.time() - age, "reason": ""}
    client.hset(pool_keys.workers(MODEL), name, json.dumps(beat))


class TestHeartbeatThread:
    def test_a_heartbeat_is_starting_then_ready_then_removed(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        heartbeat = HeartbeatThread(writer)
        heartbeat.start()
        assert heartbeats(redis_client) == {ME: (WorkerState.STARTING, "")}
        heartbeat.ready()
        assert heartbeats(redis_client) == {ME: (WorkerState.READY, "")}
        heartbeat.leave()
        assert heartbeats(redis_client) == {}

    def test_a_failed_start_stores_the_reason(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        heartbeat = HeartbeatThread(writer)
        heartbeat.start()
        heartbeat.fail("the weights are not there")
        assert heartbeats(redis_client) == {ME: (WorkerState.FAILED, "the weights are not there")}

    def test_a_ready_worker_removes_stale_heartbeats(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        write_heartbeat(redis_client, "failed", "failed", 1)
        write_heartbeat(redis_client, "killed", "ready", STALE_SECONDS + 1)
        write_heartbeat(redis_client, "busy", "ready", 1)
        heartbeat = HeartbeatThread(writer)
        heartbeat.start()
        assert set(heartbeats(redis_client)) == {ME, "failed", "killed", "busy"}
        heartbeat.ready()
        assert set(heartbeats(redis_client)) == {ME, "busy"}
        heartbeat.leave()

    def test_draining_is_written_without_waiting_for_the_interval(
        self, writer: HeartbeatWriter, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker.process.health, "INTERVAL_SECONDS", 600.0)
        heartbeat = HeartbeatThread(writer)
        heartbeat.start()
        heartbeat.ready()
        heartbeat.drain()
        wait_until(lambda: heartbeats(redis_client) == {ME: (WorkerState.DRAINING, "")})
        heartbeat.leave()
        assert heartbeats(redis_client) == {}

    def test_the_heartbeat_has_the_held_shards_and_the_throughput(
        self, writer: HeartbeatWriter, redis_client: Any
    ) -> None:
        heartbeat = HeartbeatThread(writer)
        heartbeat.throughput = ThroughputMeter(iter([0.0, 0.0, 2.0, 2.0, 2.0]).__next__)
        heartbeat.throughput.shard_started(1000)
        heartbeat.throughput.shard_ended(1000, scored=True)
        heartbeat.throughput.shard_started(10)
        heartbeat.ready()
        (beat,) = read_heartbeats(redis_client.hgetall(pool_keys.workers(MODEL)))
        assert (beat.held, beat.tokens_per_second) == (1, 500.0)

    @pytest.mark.usefixtures("short_interval")
    def test_heartbeats_repeat_until_the_worker_leaves(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        heartbeat = HeartbeatThread(writer)
        heartbeat.start()
        for _ in range(250):
            redis_client.delete(pool_keys.workers(MODEL))
            time.sleep(0.04)
            if heartbeats(redis_client):
                break
        else:
            raise AssertionError("no second heartbeat was written")
        heartbeat.leave()
        time.sleep(0.1)
        assert heartbeats(redis_client) == {}

    @pytest.mark.usefixtures("short_interval")
    def test_an_unreachable_redis_is_logged_once_and_raises_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        with connect(dead_redis_url()) as client, caplog.at_level(logging.WARNING):
            heartbeat = HeartbeatThread(HeartbeatWriter(client, MODEL, ME))
            heartbeat.start()
            heartbeat.ready()
            time.sleep(0.3)
            heartbeat.leave()
        assert len([record for record in caplog.records if "heartbeats cannot be written" in record.message]) == 1

    def test_a_failed_start_without_redis_raises_nothing(self) -> None:
        with connect(dead_redis_url()) as client:
            heartbeat = HeartbeatThread(HeartbeatWriter(client, MODEL, ME))
            heartbeat.start()
            heartbeat.fail("the weights are not there")


class TestStartMs:
    """How much of a shard's time in the queue passed before the pool had a ready worker."""

    def test_it_is_zero_before_the_worker_is_ready(self, writer: HeartbeatWriter) -> None:
        assert HeartbeatThread(writer).start_ms(5000.0) == 0.0

    def test_it_is_the_wait_before_the_worker_was_ready(self, writer: HeartbeatWriter) -> None:
        heartbeat = HeartbeatThread(writer)
        heartbeat.ready()
        assert 3000 < heartbeat.start_ms(5000.0) <= 5000
        time.sleep(0.05)
        assert heartbeat.start_ms(50.0) == 0.0

    def test_it_ends_when_the_first_worker_of_the_pool_was_ready(
        self, writer: HeartbeatWriter, redis_client: Any
    ) -> None:
        for name, state, seconds in (("first", "ready", 60), ("coming", "starting", 900), ("gone", "failed", 900)):
            beat = {"worker": name, "state": state, "at": time.time(), "ready_at": time.time() - seconds}
            redis_client.hset(pool_keys.workers(MODEL), name, json.dumps(beat))
        heartbeat = HeartbeatThread(writer)
        heartbeat.ready()
        assert heartbeat.start_ms(50_000.0) == 0.0
        assert 8000 < heartbeat.start_ms(70_000.0) <= 10_000

    def test_a_clock_that_is_ahead_has_no_effect(self, writer: HeartbeatWriter, redis_client: Any) -> None:
        beat = {"worker": "other", "state": "ready", "at": time.time(), "ready_at": time.time() + 3600}
        redis_client.hset(pool_keys.workers(MODEL), "other", json.dumps(beat))
        heartbeat = HeartbeatThread(writer)
        heartbeat.ready()
        assert heartbeat.start_ms(5000.0) <= 5000


class TestHealthCheck:
    def test_a_host_is_ready_when_one_of_its_workers_is(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "host-1", "starting", 0)
        assert not is_ready_here(redis_client, MODEL, "host")
        write_heartbeat(redis_client, "host-2", "ready", 0)
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
    def test_workers_that_are_not_ready_or_not_on_this_host_do_not_count(
        self, redis_client: Any, name: str, state: str, age: float
    ) -> None:
        write_heartbeat(redis_client, name, state, age)
        assert not is_ready_here(redis_client, MODEL, "host")

    def test_a_host_whose_name_starts_with_this_hosts_name_does_not_count(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "host-b-77", "ready", 0)
        assert not is_ready_here(redis_client, MODEL, "host")

    @pytest.mark.parametrize(("state", "status", "output"), [("ready", 0, "ready\n"), ("starting", 1, "not ready\n")])
    def test_the_command_returns_the_state_as_its_exit_status(
        self,
        redis_url: str,
        redis_client: Any,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        state: str,
        status: int,
        output: str,
    ) -> None:
        models = tmp_path / "models.yaml"
        models.write_text(f"models: [{{name: {MODEL}}}]")
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("RERANKQ_MODELS_FILE", str(models))
        monkeypatch.setattr("socket.gethostname", lambda: "host")
        write_heartbeat(redis_client, "host-1", state, 0)
        assert main() == status
        assert capsys.readouterr().out == output
