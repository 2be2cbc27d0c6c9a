"""Many cycles of scaling to zero and back: `make test-long`."""

import pytest

from tests.cycles import check_cycles
from tests.stacks import autoscaler_messages, running
from tests.worker.support import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CYCLES = 20
IDLE_SECONDS = 0.5


@pytest.mark.parametrize("standby", [False, True], ids=["plain", "standby"])
@pytest.mark.parametrize("engine", ["lexical", pytest.param("vllm", marks=pytest.mark.engine)])
def test_twenty_cycles_lose_no_request_and_wait_no_longer_than_a_start(engine: str, standby: bool) -> None:
    with running(engine=engine, pool={"idle_seconds": IDLE_SECONDS, "standby": standby}) as stack:
        if standby:
            wait_until(lambda: "a standby is ready" in "".join(autoscaler_messages(stack)), seconds=120)
        seconds = check_cycles(stack, CYCLES, IDLE_SECONDS, standbys=int(standby))
    for phase, taken in seconds.items():
        taken.sort()
        print(
            f"{engine:8} {phase:10} {CYCLES} requests, seconds: median {taken[CYCLES // 2]:.2f}, worst {taken[-1]:.2f}"
        )
