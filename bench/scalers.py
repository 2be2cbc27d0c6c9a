"""Who decides how many workers there are: this project's policy, KEDA with the HPA, or an operator once and for all.

KEDA and the HPA as their sources say:
- KEDA polls. From zero it wakes one worker when a trigger is above 0; to zero it goes when none was at any poll of the
  `cooldownPeriod`.
- Between one and the most, the HPA decides every 15 s: ceil(metric / target), no change within a tolerance of 0.1,
  not below the highest proposal of the stabilization window, and up and down so many workers at a time.
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
    """`shared.pools.scaling`, as the autoscaler calls it: four times a second there, once a second here."""

    interval = _LOOP_SECONDS
    wake_seconds: float | None = _WAKE_SECONDS

    def __init__(self, pool: PoolSettings) -> None:
        self._pool = pool
        self._memory = ScalingState()

    def look(self, signals: PoolSignals, now: float) -> int:
        decision = decide(signals, self._pool, self._memory, now)
        self._memory = decision.state
        return decision.desired


class BacklogAlone(Policy):
    """The same policy where it cannot see which workers are busy: what is lost then."""

    def look(self, signals: PoolSignals, now: float) -> int:
        return super().look(replace(signals, busy_workers=frozenset()), now)


@dataclass(frozen=True, slots=True)
class KedaSettings:
    """What stands in a ScaledObject; the defaults are KEDA's and the HPA's own.

    Up: as many as `up_pods` or `up_percent` more in 15 s allow, whichever is more. Down: `down_percent` fewer within
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
"""infra/kubernetes/worker/scaledobject.yaml."""


class KedaHpa:
    """KEDA for the step from and to zero, the HPA for everything between.

    The metric is the outstanding tokens, and the target what one worker does in `target_drain_seconds`.
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

    def look(self, signals: PoolSignals, now: float) -> int:
        if self._replicas and now % self.sync_seconds == 0:
            self._replicas = self._autoscale(self._size(signals), now)
        if now % self._settings.polling_seconds == 0:
            self._replicas = self._activate(signals, now)
        return self._replicas

    def _size(self, signals: PoolSignals) -> float:
        """The metric over its target: how many workers it asks for."""
        return (signals.interactive.queued_tokens + signals.batch.queued_tokens) / self._target

    def _active(self, signals: PoolSignals) -> bool:
        """Whether a trigger is above 0: ZCARD of the outstanding shards."""
        return signals.shards > 0

    def _activate(self, signals: PoolSignals, now: float) -> int:
        """KEDA's part."""
        if self._active(signals):
            self._active_at = now
            return self._replicas or 1
        if not self._pool.min and self._active_at + self._settings.cooldown_seconds < now:
            return 0
        return self._replicas

    def _autoscale(self, size: float, now: float) -> int:
        """The HPA's part."""
        current, settings = self._replicas, self._settings
        proposal = current if abs(1 - size / current) <= self.tolerance else math.ceil(size)
        proposal = min(max(proposal, self._pool.min, 1), self._pool.max)
        _forget(self._proposals, now - settings.stabilization_seconds)
        self._proposals.append((now, proposal))
        if proposal > current:
            highest = max(current + settings.up_pods, math.ceil(current * (1 + settings.up_percent / 100)))
            return min(proposal, highest)
        stable = min(current, max(count for _, count in self._proposals))
        _forget(self._removed, now - settings.down_seconds)
        before = current + sum(count for _, count in self._removed)
        lowest = min(int(before * (1 - settings.down_percent / 100)), current)
        self._removed.append((now, current - max(stable, lowest)))
        return max(stable, lowest)


class KedaOnDesired(KedaHpa):
    """KEDA as the manifests here set it up: it reads `desired` of GET /v1/pools/MODEL, which the API decides anew each
    second; the HPA's window comes on top of the policy's."""

    def __init__(self, pool: PoolSettings, settings: KedaSettings) -> None:
        super().__init__(pool, settings, tokens_per_second=1.0)
        self._api = Policy(pool)
        self._desired = 0

    def look(self, signals: PoolSignals, now: float) -> int:
        self._desired = self._api.look(signals, now)
        return super().look(signals, now)

    def _size(self, _signals: PoolSignals) -> float:
        return self._desired

    def _active(self, signals: PoolSignals) -> bool:
        return signals.shards > 0 or self._desired > 0


def _forget(noted: deque[tuple[float, int]], until: float) -> None:
    while noted and noted[0][0] <= until:
        noted.popleft()


class AlwaysOn:
    """So many workers, come what may."""

    interval = 3600.0
    wake_seconds: float | None = None

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def look(self, _signals: PoolSignals, _now: float) -> int:
        return self._workers
