"""Says in words what is wrong with a pool, for /ready and /v1/pools."""

from api.pool_monitor import PoolSnapshot, StartFailure

WAITING_SECONDS = 10.0
"""How long work may wait without a worker that starts: an autoscaler starts one within a second."""


def problem_of(pool: PoolSnapshot, failure: StartFailure | None) -> str | None:
    """What an operator should look at; None when the pool works, or has nothing to do."""
    signals = pool.signals
    if failure is not None:
        when = (
            f"the next attempt may follow in {failure.retry_after} s" if failure.retry_in else "it may be tried again"
        )
        return f"no worker runs, since the last start failed: {failure.reason}; {when}"
    jobs = signals.interactive.queued_jobs + signals.batch.queued_jobs
    if not jobs or signals.ready or signals.starting or signals.oldest_seconds < WAITING_SECONDS:
        return None
    what = "1 job waits" if jobs == 1 else f"{jobs} jobs wait"
    return f"{what} for {signals.oldest_seconds:.0f} s and no worker is starting: is an autoscaler or a worker running?"
