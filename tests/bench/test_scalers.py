"""The compared scalers follow the sources of KEDA and the HPA, and this repository's manifests."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.fleet import Fleet, Plan, Scaler
from bench.scalers import SHIPPED, AlwaysOn, BacklogAlone, KedaHpa, KedaOnDesired, KedaSettings, Policy
from bench.traffic import Arrival
from shared.contracts import WorkClass
from shared.models import PoolSettings
from shared.pools.signals import ClassLoad, PoolSignals

MANIFEST = Path(__file__).parents[2] / "infra/kubernetes/worker/scaledobject.yaml"
RATE = 1000.0
POOL = PoolSettings(max=100)
TARGET = 30_000
"""Tokens that one worker scores in `target_drain_seconds`, 30 s."""


def make_signals(tokens: float = 0, **fields: Any) -> PoolSignals:
    shards = 1 if tokens else 0
    signals = PoolSignals(
        model="m",
        interactive=ClassLoad(jobs=shards, queued_pairs=shards, queued_tokens=round(tokens)),
        batch=ClassLoad(),
        oldest_seconds=0.0,
        idle_seconds=0.0,
        shards=shards,
        starting=0,
        ready=0,
        draining=0,
        tokens_per_second=RATE,
    )
    return replace(signals, **fields)


def sizes(scaler: Scaler, tokens_at: dict[int, float]) -> list[int]:
    """The decisions of the scaler; `tokens_at` maps a second to the outstanding tokens."""
    return [scaler.decide(make_signals(tokens), float(at)) for at, tokens in tokens_at.items()]


def keda(settings: KedaSettings = KedaSettings(), pool: PoolSettings = POOL) -> KedaHpa:  # noqa: B008
    return KedaHpa(pool, settings, RATE)


class TestKeda:
    def test_it_wakes_one_worker_at_its_next_poll(self) -> None:
        assert sizes(keda(), {0: 0, 15: 9 * TARGET, 29: 9 * TARGET, 30: 9 * TARGET}) == [0, 0, 0, 1]

    def test_it_scales_to_zero_after_five_minutes_of_empty_polls(self) -> None:
        tokens_at = {0: TARGET, **dict.fromkeys(range(15, 331, 15), 0.0)}
        assert sizes(keda(), tokens_at)[-2:] == [1, 0]

    def test_it_misses_work_that_comes_and_ends_between_two_polls(self) -> None:
        tokens_at = {0: 1.0, **{at: 0.0 if at % 30 == 0 else 1.0 for at in range(1, 331)}}
        assert sizes(keda(), tokens_at)[-1] == 0

    def test_it_keeps_the_minimum(self) -> None:
        assert sizes(keda(pool=PoolSettings(min=2, max=9)), {0: 0, 15: 0, 400: 0, 420: 0}) == [2, 2, 2, 2]


class TestHpa:
    def test_it_asks_for_metric_over_target_every_fifteen_seconds(self) -> None:
        assert sizes(keda(), {0: TARGET, 7: 4 * TARGET, 15: 4.2 * TARGET, 30: 4.2 * TARGET}) == [1, 1, 5, 5]

    def test_it_adds_four_workers_at_a_time_or_doubles_them(self) -> None:
        tokens_at = dict.fromkeys(range(0, 91, 15), 1000.0 * TARGET)
        assert sizes(keda(), tokens_at) == [1, 5, 10, 20, 40, 80, 100]

    @pytest.mark.parametrize(("load", "size"), [(3.31, 4), (3.29, 3), (2.71, 3)])
    def test_it_tolerates_a_deviation_of_a_tenth(self, load: float, size: int) -> None:
        assert sizes(keda(), {0: TARGET, 15: 3 * TARGET, 30: load * TARGET})[-1] == size

    def test_it_scales_down_to_the_highest_proposal_of_five_minutes(self) -> None:
        tokens_at = {0: TARGET, 15: 5 * TARGET, 30: 2 * TARGET, **dict.fromkeys(range(45, 331, 15), 2.0 * TARGET)}
        found = dict(zip(tokens_at, sizes(keda(), tokens_at), strict=True))
        assert (found[300], found[315]) == (5, 2)

    def test_it_limits_how_many_workers_it_removes_at_once(self) -> None:
        settings = KedaSettings(stabilization_seconds=0, down_percent=50, down_seconds=30)
        tokens_at = {
            0: TARGET,
            15: 5 * TARGET,
            30: 10 * TARGET,
            45: 16 * TARGET,
            **dict.fromkeys(range(60, 121, 15), 1.0),
        }
        assert sizes(keda(settings), tokens_at) == [1, 5, 10, 16, 8, 8, 4, 4, 2]


class TestManifests:
    def test_the_simulated_settings_are_those_of_the_manifest(self) -> None:
        spec = yaml.safe_load(MANIFEST.read_text())["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        ups, downs = behavior["scaleUp"]["policies"], behavior["scaleDown"]["policies"]
        assert ups == [{"type": "Pods", "value": SHIPPED.up_pods, "periodSeconds": 15}]
        assert downs == [{"type": "Percent", "value": SHIPPED.down_percent, "periodSeconds": SHIPPED.down_seconds}]
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] == SHIPPED.stabilization_seconds
        assert spec["pollingInterval"] == SHIPPED.polling_seconds
        assert spec["cooldownPeriod"] == SHIPPED.cooldown_seconds
        size = next(trigger for trigger in spec["triggers"] if trigger["type"] == "metrics-api")
        assert (size["metadata"]["valueLocation"], size["metadata"]["targetValue"]) == ("desired", "1")

    def test_the_pool_scales_to_zero_after_its_idle_seconds_and_the_cooldown(self) -> None:
        scaler = KedaOnDesired(POOL, SHIPPED)
        assert scaler.decide(make_signals(100), 0.0) == 1
        found = [scaler.decide(make_signals(ready=1, idle_seconds=float(at)), float(at)) for at in range(1, 400)]
        assert found.index(0) + 1 == 330, "the pool's 300 s, KEDA's 30"

    def test_the_size_is_the_policys_decision(self) -> None:
        scaler = KedaOnDesired(POOL, SHIPPED)
        assert scaler.decide(make_signals(100), 0.0) == 1
        assert scaler.decide(make_signals(7.5 * TARGET, ready=1), 15.0) == 8


def constant(seconds: int) -> list[Arrival]:
    """Ten evenly spaced calls per second, each one second of work."""
    return [Arrival(number / 10, 20, int(RATE), WorkClass.INTERACTIVE) for number in range(seconds * 10)]


class Recorder:
    """Records the decisions of another scaler."""

    def __init__(self, scaler: Scaler) -> None:
        self.interval, self.wake_seconds = scaler.interval, scaler.wake_seconds
        self.decided: list[tuple[float, int]] = []
        self._scaler = scaler

    def decide(self, signals: PoolSignals, now: float) -> int:
        self.decided.append((now, self._scaler.decide(signals, now)))
        return self.decided[-1][1]


def sizes_under_constant_traffic(scaler: Scaler) -> list[int]:
    """The distinct consecutive decisions from the 15th to the 60th minute."""
    recorder = Recorder(scaler)
    Fleet(recorder, Plan(tokens_per_second=RATE)).run(constant(3600), 3600)
    return [size for size, _ in itertools.groupby(size for at, size in recorder.decided if 900 < at < 3600)]


class TestPolicy:
    @pytest.mark.parametrize("drain", [5, 30, 120])
    def test_constant_traffic_gets_a_constant_size(self, drain: float) -> None:
        (size,) = sizes_under_constant_traffic(Policy(PoolSettings(max=100, target_drain_seconds=drain)))
        assert 10 <= size <= 12, "ten seconds of work arrive per second"

    def test_without_knowledge_of_busy_workers_the_size_oscillates(self) -> None:
        assert len(sizes_under_constant_traffic(BacklogAlone(POOL))) > 50


def test_always_on_has_a_fixed_size() -> None:
    assert AlwaysOn(7).decide(make_signals(), 0.0) == 7
