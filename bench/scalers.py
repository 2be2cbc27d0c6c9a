"""The scalers of the simulation: this project's policy, KEDA with the HPA, and a fixed number of workers.

KEDA and the HPA follow their sources:
- KEDA polls its triggers. It scales from zero to one when a trigger is above 0, and to zero when no trigger was above 0
  at any poll within the `cooldownPeriod`.
- Above zero, the HPA decides every 15 s: ceil(metric / target), no change within a tolerance of 0.1, not below the
  highest proposal of the stabilization window, and limited steps up and down.
"""

import math
from collections import deque
from dataclasses import dataclass, replace

from shared.models import PoolSettings
from shared.pools.scaling import ScalingState, decide
from shared.pools.signals import PoolSignals

_LOOP_SECONDS = 1.0
_WAKE_SECONDS = 0.3


class Policy:
    """`shared.pools.scaling`. The autoscaler applies it ten times a second, this simulation once a second."""

    interval = _LOOP_SECONDS
    wake_seconds: float | None = _WAKE_SECONDS

    def __init__(self, pool: PoolSettings) -> None:
        self._pool = pool
        self._memory = ScalingState()

    def decide(self, signals: PoolSignals, now: float) -> int:
        decision = decide(signals, self._pool, self._memory, now)
        self._memory = decision.state
        return decision.desired


class BacklogAlone(Policy):
    """The same policy without knowledge of which workers are busy, to show what that knowledge is worth."""

    def decide(self, signals: PoolSignals, now: float) -> int:
        return super().decide(replace(signals, busy_workers=frozenset()), now)


@dataclass(frozen=True, slots=True)
class KedaSettings:
    """The settings of a ScaledObject; the defaults are those of KEDA and the HPA.

    In 15 s the HPA adds up to `up_pods` or `up_percent`, whichever is more. It removes up to `down_percent` within
    `down_seconds`.
    """

    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    stabilization_seconds: float = 300.0
    up_pods: int = 4
    up_percent: int = 100
    down_percent: int = 100
    down_seconds: float = 15.0


SHIPPED = KedaSettings(
    polling_seconds=2.0,
    cooldown_seconds=30.0,
    stabilization_seconds=60.0,
    up_pods=100,
    up_percent=0,
    down_percent=50,
    down_seconds=30.0,
)
"""The settings in infra/kubernetes/worker/scaledobject.yaml."""


class KedaHpa:
    """KEDA for the step from and to zero, the HPA above it.

    The metric is the number of outstanding tokens; the target is what one worker scores in `target_drain_seconds`.
    """

    interval = 1.0
    wake_seconds: float | None = None
    sync_seconds = 15.0
    tolerance = 0.1

    def __init__(self, pool: PoolSettings, settings: KedaSettings, tokens_per_second: float) -> None:
        self._pool = pool
        self._settings = settings
        self._target = tokens_per_second * pool.target_drain_seconds
        self._replicas = pool.min
        self._active_at = -math.inf
        self._proposals: deque[tuple[float, int]] = deque()
        self._removed: deque[tuple[float, int]] = deque()

    def decide(self, signals: PoolSignals, now: float) -> int:
        if self._replicas and now % self.sync_seconds == 0:
            self._replicas = self._autoscale(self._size(signals), now)
        if now % self._settings.polling_seconds == 0:
            self._replicas = self._activate(signals, now)
        return self._replicas

    def _size(self, signals: PoolSignals) -> float:
        """Return metric / target, the number of workers that the metric asks for."""
        return (signals.interactive.queued_tokens + signals.batch.queued_tokens) / self._target

    def _active(self, signals: PoolSignals) -> bool:
        """Whether a trigger is above 0; the trigger is ZCARD of the outstanding shards."""
        return signals.shards > 0

    def _activate(self, signals: PoolSignals, now: float) -> int:
        """Apply KEDA's rule for the step from and to zero."""
        if self._active(signals):
            self._active_at = now
            return self._replicas or 1
        if not self._pool.min and self._active_at + self._settings.cooldown_seconds < now:
            return 0
        return self._replicas

    def _autoscale(self, size: float, now: float) -> int:
        """Apply the HPA's rule."""
        current, settings = self._replicas, self._settings
        proposal = current if abs(1 - size / current) <= self.tolerance else math.ceil(size)
        proposal = min(max(proposal, self._pool.min, 1), self._pool.max)
        _discard_old(self._proposals, now - settings.stabilization_seconds)
        self._proposals.append((now, proposal))
        if proposal > current:
            highest = max(current + settings.up_pods, math.ceil(current * (1 + settings.up_percent / 100)))
            return min(proposal, highest)
        stable = min(current, max(count for _, count in self._proposals))
        _discard_old(self._removed, now - settings.down_seconds)
        before = current + sum(count for _, count in self._removed)
        lowest = min(int(before * (1 - settings.down_percent / 100)), current)
        self._removed.append((now, current - max(stable, lowest)))
        return max(stable, lowest)


class KedaOnDesired(KedaHpa):
    """KEDA as this repository's manifests configure it.

    It reads `desired` of GET /v1/pools/MODEL, which the API computes once a second. The HPA's stabilization window adds
    to that of the policy.
    """

    def __init__(self, pool: PoolSettings, settings: KedaSettings) -> None:
        super().__init__(pool, settings, tokens_per_second=1.0)
        self._api = Policy(pool)
        self._desired = 0

    def decide(self, signals: PoolSignals, now: float) -> int:
        self._desired = self._api.decide(signals, now)
        return super().decide(signals, now)

    def _size(self, _signals: PoolSignals) -> float:
        return self._desired

    def _active(self, signals: PoolSignals) -> bool:
        return signals.shards > 0 or self._desired > 0


def _discard_old(entries: deque[tuple[float, int]], until: float) -> None:
    while entries and entries[0][0] <= until:
        entries.popleft()


class AlwaysOn:
    """A fixed number of workers."""

    interval = 3600.0
    wake_seconds: float | None = None

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def decide(self, _signals: PoolSignals, _now: float) -> int:
        return self._workers
