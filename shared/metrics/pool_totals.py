"""The totals of a pool's workers in Redis: workers add what they counted, the API reads the sums.

What a worker counted since its last push, up to two seconds earlier, is lost when it is killed. A push whose reply is
lost may count twice.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

import redis
import redis.asyncio
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from shared.keys import pool_keys
from shared.metrics.definitions import Definition, Kind
from shared.metrics.work import POOL_PREFIX, WORK_METRICS

_SECONDS = 30 * 86_400
"""How long the totals of an unused pool are kept."""


class Series(NamedTuple):
    """A sample's name, without the prefix, and its labels, sorted."""

    name: str
    labels: tuple[tuple[str, str], ...]


class PoolTotals:
    """The totals of one model's pool, as its workers write them."""

    def __init__(self, client: redis.Redis, model: str) -> None:
        self._client = client
        self._key = pool_keys.totals(model)

    def add(self, differences: Mapping[Series, float]) -> None:
        """Add to the totals, in one round trip. Raises redis.RedisError."""
        if not differences:
            return
        with self._client.pipeline(transaction=True) as pipeline:
            for series, value in differences.items():
                pipeline.hincrbyfloat(self._key, json.dumps([series.name, *series.labels]), value)
            pipeline.expire(self._key, _SECONDS)
            pipeline.execute()


async def read_totals(client: redis.asyncio.Redis, models: list[str]) -> dict[str, dict[Series, float]]:
    """The totals of several pools, in one round trip. Raises redis.RedisError."""
    async with client.pipeline(transaction=False) as pipeline:
        for model in models:
            pipeline.hgetall(pool_keys.totals(model))
        found = await pipeline.execute()
    return {model: _parse(fields) for model, fields in zip(models, found, strict=True)}


def _parse(fields: Mapping[bytes, bytes]) -> dict[Series, float]:
    totals = {}
    for field, value in fields.items():
        try:
            name, *labels = json.loads(field)
            totals[Series(name, tuple((key, label) for key, label in labels))] = float(value)
        except (ValueError, TypeError):
            continue  # written by another version
    return totals


def total_families(totals: Mapping[str, Mapping[Series, float]]) -> list[Metric]:
    """The metrics of all pools, one family for each definition."""
    return [_family(definition, totals) for definition in WORK_METRICS]


def _family(definition: Definition, totals: Mapping[str, Mapping[Series, float]]) -> Metric:
    family = Definition(
        POOL_PREFIX + definition.name, definition.kind, definition.documentation, ("model", *definition.labels)
    ).family()
    suffixes = ("_total",) if definition.kind is Kind.COUNTER else ("_bucket", "_count", "_sum")
    names = {definition.name + suffix for suffix in suffixes}
    for model, samples in totals.items():
        for series, value in sorted(samples.items(), key=_exposition_order):
            if series.name in names:
                family.samples.append(Sample(POOL_PREFIX + series.name, {"model": model, **dict(series.labels)}, value))
    return family


def _exposition_order(item: tuple[Series, float]) -> tuple[list[tuple[str, str]], str, float]:
    """By labels, then buckets by their bound, as parsers expect them."""
    series = item[0]
    labels = dict(series.labels)
    bound = float(labels.pop("le", "inf").replace("+Inf", "inf"))
    return sorted(labels.items()), series.name, bound
