"""Counts what an autoscaler decides and does with the workers of its machine."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from shared.metrics.definitions import counter, gauge

DESIRED = gauge("rerankq_autoscaler_desired_workers", "Workers that the pool should have, on all machines", "model")
SLOTS = gauge("rerankq_autoscaler_slots", "Workers that this machine gives to the pool", "model")
WORKERS = gauge("rerankq_autoscaler_workers", "Workers of the pool by state, on all machines", "model", "state")
STARTS = counter("rerankq_autoscaler_starts", "Workers that this machine started", "model")
EXITS = counter(
    "rerankq_autoscaler_exits",
    "Workers of this machine that ended: stopped, crashed after they were ready, or failed to start",
    "model",
    "how",
)
ROUND = gauge("rerankq_autoscaler_last_round_timestamp_seconds", "When the autoscaler last read all pools")

AUTOSCALER_METRICS = (DESIRED, SLOTS, WORKERS, STARTS, EXITS, ROUND)


class AutoscalerMetrics:
    """The metrics of one autoscaler."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._desired = DESIRED.gauge(self.registry)
        self._slots = SLOTS.gauge(self.registry)
        self._workers = WORKERS.gauge(self.registry)
        self._starts = STARTS.counter(self.registry)
        self._exits = EXITS.counter(self.registry)
        self._round = ROUND.gauge(self.registry)

    def decided(self, model: str, desired: int, slots: int, workers: Mapping[str, int]) -> None:
        """Set a pool's numbers; `workers` are counted by state."""
        self._desired.labels(model).set(desired)
        self._slots.labels(model).set(slots)
        for state, count in workers.items():
            self._workers.labels(model, state).set(count)

    def round_ended(self) -> None:
        self._round.set_to_current_time()

    def started(self, model: str) -> None:
        self._starts.labels(model).inc()

    def exited(self, model: str, how: str) -> None:
        self._exits.labels(model, how).inc()
