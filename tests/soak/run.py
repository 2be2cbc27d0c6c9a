"""One run: a cluster, a steady load, kills, and what was measured of it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles

from tests.chaos.cluster import Cluster, Size, Slot
from tests.soak.load import Caller, Calls, capacity, steady
from tests.soak.regression import Series, growth_of_thirds
from tests.soak.repeating import repeating
from tests.soak.watch import SAMPLE_SECONDS, Watch

_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds. `load`: the share of the measured capacity. Memory may grow by so many MiB an hour."""

    seconds: float = 1800.0
    warm_up_seconds: float = 300.0
    kill_every_seconds: float = 60.0
    load: float = 0.7
    memory_growth: float = 1.0
    capacity_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured; series are those after the warm-up. `p99` has a value for each minute."""

    plan: Plan
    per_second: float
    kills: int
    calls: Calls
    memory: list[Series]
    files: list[Series]
    keys: Series
    p99: Series

    def problems(self) -> list[str]:
        """What grew, and what failed."""
        plan = self.plan
        found = [
            f"{each.name}: memory grows by {each.slope:.2f} MiB an hour"
            for each in self.memory
            if each.slope > plan.memory_growth
        ]
        for each in [*self.files, self.keys]:
            if growth_of_thirds(each.values) > 1.2:
                found.append(f"{each.name}: {each.unit} grow by {growth_of_thirds(each.values) - 1:.0%}")
        if growth_of_thirds(self.p99.values) > 1.5:
            found.append(f"p99 grows by {growth_of_thirds(self.p99.values) - 1:.0%}")
        if self.calls.failed:
            found.append(f"answers other than 200: {self.calls.failed}")
        return found


def run(plan: Plan, log: Callable[[str], None]) -> Outcome:
    """Run the plan. Kills alternate between one worker and one API process; the others live through the run."""
    # Full after a minute, so that entries are evicted during the run.
    os.environ["RERANKQ_SCORE_CACHE_ENTRIES"] = "10000"
    with Cluster(Size(apis=2, workers=3, concurrency=4, delay_seconds=0.1)) as cluster:
        warm = Calls(time.monotonic())
        found = asyncio.run(capacity(Caller(cluster.urls, warm), plan.capacity_seconds))
        per_second = plan.load * found
        log(f"capacity {found:.0f} calls/s, load {per_second:.0f} calls/s")
        victims = [cluster.workers[-1], cluster.apis[-1]]
        survivors = [slot for slot in (*cluster.apis, *cluster.workers) if slot not in victims]
        watch = Watch({slot.name: slot.pid for slot in survivors} | {"redis": cluster.redis_pid}, cluster.redis_port)
        calls, killer = Calls(time.monotonic()), Killer(victims, log)
        with (
            repeating(watch.sample, SAMPLE_SECONDS, "watch"),
            repeating(killer.kill, plan.kill_every_seconds, "killer"),
        ):
            asyncio.run(steady(Caller(cluster.urls, calls), per_second, plan.seconds))
        watch.close()
    after = plan.warm_up_seconds
    return Outcome(
        plan,
        per_second,
        killer.kills,
        calls,
        [each.after(after) for each in watch.memory.values()],
        [each.after(after) for each in watch.files.values()],
        watch.keys.after(after),
        p99_by_minute(calls).after(after),
    )


def p99_by_minute(calls: Calls) -> Series:
    """The 99th percentile of each minute's calls, in milliseconds."""
    windows: dict[int, list[float]] = {}
    for ended, seconds in calls.latencies:
        windows.setdefault(int(ended // _WINDOW_SECONDS), []).append(seconds)
    series = Series("p99", "ms")
    for window, values in sorted(windows.items()):
        if len(values) >= 100:
            series.add(window * _WINDOW_SECONDS, quantiles(values, n=100)[-1] * 1000)
    return series


class Killer:
    """Kills one of the victims at each call, in turn."""

    def __init__(self, victims: list[Slot], log: Callable[[str], None]) -> None:
        self.kills = 0
        self._victims = victims
        self._log = log

    def kill(self) -> None:
        victim = self._victims[self.kills % len(self._victims)]
        self._log(f"kill {self.kills + 1}: {victim.name}")
        victim.end(signal.SIGKILL)
        self.kills += 1
