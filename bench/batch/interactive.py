"""What interactive callers notice of a batch: the time of calls, one after the other, with and without a batch."""

import json
import time
from itertools import count

from bench.batch.context import Context
from bench.batch.report import Measurement
from bench.batch.service import Service
from bench.generator import MeasurementFailed
from bench.spec import percentiles

RATIO = 2.0
DELAYS_SECONDS = (0.0, 0.02)
DOCUMENTS = 3
_WARM_UP_CALLS = 20
_POLL_SECONDS = 0.1


def interactive(context: Context) -> list[Measurement]:
    """One row for the lexical engine without a delay, and one with the delay of a model."""
    return [_beside_a_batch(context, delay) for delay in DELAYS_SECONDS]


def _beside_a_batch(context: Context, delay: float) -> Measurement:
    shape, calls = context.sizes.beside, context.sizes.calls
    path = context.inputs.path(shape)
    with context.running_lexical(delay) as service:
        caller = Caller(context, service)
        caller.seconds_of(_WARM_UP_CALLS)
        context.tell(f"engine {delay * 1000:g} ms per shard: {calls} calls without a batch")
        alone = percentiles(caller.seconds_of(calls))
        batch_id = service.create_batch(service.upload_file(path))
        while not (batch := service.batch(batch_id))["progress"]["requests_done"]:
            _require_unfinished(batch)
            time.sleep(_POLL_SECONDS)
        context.tell(f"{calls} calls beside the batch")
        beside = percentiles(caller.seconds_of(calls))
        batch = service.batch(batch_id)
        _require_unfinished(batch)
        service.cancel(batch_id)
    ratio = beside["p99"] / alone["p99"]
    return Measurement(
        f"{calls} calls, one after the other, {DOCUMENTS} documents, beside the batch of {shape.pairs:,} pairs, engine "
        f"{delay * 1000:g} ms per shard: p99, against no batch",
        f"{beside['p99'] * 1000:.1f} ms, {ratio:.2f}x of {alone['p99'] * 1000:.1f} ms",
        f"<= {RATIO:g}x",
        ratio <= RATIO,
        {"alone_seconds": alone, "beside_seconds": beside, "batch": batch["progress"]},
    )


class Caller:
    """Sends requests with new texts over one connection."""

    def __init__(self, context: Context, service: Service) -> None:
        self._context = context
        self._service = service
        # Above the numbers of all lines.
        self._serials = count(100_000_000)

    def seconds_of(self, calls: int) -> list[float]:
        """The seconds that each of so many calls takes. Raises MeasurementFailed for a wrong response."""
        seconds = []
        connection = self._service.connect()
        try:
            for serial, _ in zip(self._serials, range(calls), strict=False):
                self._context.deadline.left()
                body = self._context.inputs.request(serial, DOCUMENTS)
                started = time.perf_counter()
                connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                content = response.read()
                seconds.append(time.perf_counter() - started)
                if response.status != 200 or len(json.loads(content)["results"]) != DOCUMENTS:
                    raise MeasurementFailed(f"a call failed: status {response.status}: {content[:300]!r}")
        finally:
            connection.close()
        return seconds


def _require_unfinished(batch: dict[str, object]) -> None:
    if batch["status"] not in ("validating", "in_progress"):
        raise MeasurementFailed(f"the batch ended before the calls did: it is {batch['status']}")
