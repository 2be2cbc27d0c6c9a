"""Percentiles, rates and the JSON form of a load."""

import json
from dataclasses import asdict

import pytest

from bench.spec import Freshness, Load, Outcome, percentiles


def test_percentiles_are_measured_values() -> None:
    found = percentiles([float(value) for value in range(100, 0, -1)])
    assert found == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0, "mean": 50.5}


def test_one_value_is_every_percentile() -> None:
    assert set(percentiles([3.0]).values()) == {3.0}


def test_no_values_have_no_percentiles() -> None:
    assert percentiles([]) == {}


def test_rates_count_requests_and_pairs() -> None:
    outcome = Outcome(requests=10, pairs=200, seconds=4.0, latency_ms={}, outside_ms={}, cpu_us=0.0)
    assert outcome.requests_per_second == pytest.approx(2.5)
    assert outcome.pairs_per_second == pytest.approx(50.0)


def test_a_load_survives_a_round_trip_through_json() -> None:
    load = Load(
        port=1, model="m", vocabulary="v", first=0, connections=2, documents=3, words=5, seconds=1.0,
        fresh=Freshness.QUERY,
    )  # fmt: skip
    assert Load.from_dict(json.loads(json.dumps(asdict(load)))) == load
