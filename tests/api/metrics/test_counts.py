"""What an API process counts."""

import asyncio
from contextlib import nullcontext
from time import perf_counter

import pytest
from prometheus_client import CollectorRegistry

from api.metrics.counts import ServiceCounts
from shared.contracts import WorkClass
from shared.errors import InvalidRequest, Overloaded, RateLimited

INTERACTIVE = {"class": "interactive"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def counts(registry: CollectorRegistry) -> ServiceCounts:
    return ServiceCounts(registry)


def test_responses_are_counted_by_route_and_status(counts: ServiceCounts, registry: CollectorRegistry) -> None:
    for route, status in (("/v1/rerank", 200), ("/v1/rerank", 200), ("/v1/rerank", 503), ("", 404)):
        counts.response(route, status, 0.1)
    total = "rerankq_http_requests_total"
    assert registry.get_sample_value(total, {"route": "/v1/rerank", "status": "200"}) == 2
    assert registry.get_sample_value(total, {"route": "/v1/rerank", "status": "503"}) == 1
    assert registry.get_sample_value(total, {"route": "", "status": "404"}) == 1
    assert registry.get_sample_value("rerankq_http_request_duration_seconds_count", {"route": "/v1/rerank"}) == 3


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (InvalidRequest("query: is missing", param="query"), "invalid_request"),
        (Overloaded("too much", reason="waiting"), "overloaded"),
        (RateLimited("too often", reason="requests_per_second"), "rate_limited"),
        (ZeroDivisionError(), "internal_error"),
        (asyncio.CancelledError(), "disconnected"),
    ],
)
def test_requests_are_counted_by_dialect_class_and_outcome(
    counts: ServiceCounts, registry: CollectorRegistry, error: BaseException | None, outcome: str
) -> None:
    raised = nullcontext() if error is None else pytest.raises(type(error))
    with raised, counts.request("jina", WorkClass.INTERACTIVE):
        if error is not None:
            raise error
    labels = INTERACTIVE | {"dialect": "jina", "outcome": outcome}
    assert registry.get_sample_value("rerankq_requests_total", labels) == 1
    reason = getattr(error, "reason", None)
    assert registry.get_sample_value("rerankq_refusals_total", {"reason": str(reason)}) == (1 if reason else None)


def test_pairs_and_waits_are_counted_by_model(counts: ServiceCounts, registry: CollectorRegistry) -> None:
    counts.accepted("small", WorkClass.INTERACTIVE, 10, 4)
    counts.waited("small", perf_counter() - 0.5)
    assert registry.get_sample_value("rerankq_requested_pairs_total", INTERACTIVE | {"model": "small"}) == 10
    assert registry.get_sample_value("rerankq_cached_pairs_total", {"model": "small"}) == 4
    name = "rerankq_request_duration_seconds_bucket"
    assert [registry.get_sample_value(name, {"model": "small", "le": bound}) for bound in ("0.25", "1.0")] == [0, 1]


def test_a_minute_is_in_the_last_bucket(counts: ServiceCounts, registry: CollectorRegistry) -> None:
    counts.response("/v1/rerank", 200, 100.0)
    name = "rerankq_http_request_duration_seconds_bucket"
    assert registry.get_sample_value(name, {"route": "/v1/rerank", "le": "64.0"}) == 0
    assert registry.get_sample_value(name, {"route": "/v1/rerank", "le": "+Inf"}) == 1
