"""When a delivery that failed is tried again. Pure functions."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses in seconds: `first`, doubling up to `longest`.

    Pauses vary by the share `jitter`, so that a receiver that returns is not called by all deliveries at once. A
    delivery fails `give_up` after its event, or after `max_tries`.
    """

    first: float = 5.0
    longest: float = 3600.0
    give_up: float = 86_400.0
    max_tries: int | None = None
    jitter: float = 0.2

    def pause(self, tries: int, age: float, retry_after: float | None = None) -> float | None:
        """The seconds until the next try after `tries` of them, `age` seconds after the event; None: there is none.

        A receiver's Retry-After makes the pause longer. The last try is at the end of the time.
        """
        if age >= self.give_up or (self.max_tries is not None and tries >= self.max_tries):
            return None
        pause = min(self.first * 2.0 ** min(tries - 1, 30), self.longest)
        pause *= 1 + random.uniform(-self.jitter, self.jitter)
        return min(max(pause, retry_after or 0.0), self.give_up - age)


STANDARD_RETRIES = RetryPolicy()
RUNPOD_RETRIES = RetryPolicy(first=10.0, longest=10.0, max_tries=3, jitter=0.0)
"""Two more tries, 10 s apart, as RunPod documents it."""
