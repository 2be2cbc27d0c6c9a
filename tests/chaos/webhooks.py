"""The fault "webhooks": kills the API processes and Redis while jobs with webhooks end, and checks every delivery."""

import signal
import time
from collections import defaultdict
from collections.abc import Sequence

from infra.local.stack import get_json
from tests.chaos.cases import Kind
from tests.chaos.fault_context import FaultContext
from tests.chaos.faults import Fault
from tests.receivers import Received, Receiver, Reply

_JOBS = 6
"""How many jobs end around each fault."""
_RESTARTED_SECONDS = 20.0
_DELIVERED_SECONDS = 45.0
"""After the last fault: a lease of a killed process, the first pauses of the backoff, and a leader's lock."""


def deliver_webhooks(context: FaultContext, count: int) -> None:
    """Kill all API processes, so that the one that sends is among them, or Redis. Every third event fails at first."""
    jobs: list[str] = []
    with Receiver(_fail_some) as receiver:
        for number in range(count):
            jobs += [context.load.submit(Kind.JOB, webhook=receiver.url) for _ in range(_JOBS)]
            # The jobs end within half a second, and their deliveries begin.
            context.sleep(context.rng.uniform(0.1, 0.6))
            context.row.faults += 1
            if number % 2 == 0:
                for slot in context.cluster.apis:
                    slot.end(signal.SIGKILL)
                context.wait_until(lambda: _all_respond(context.cluster.urls), _RESTARTED_SECONDS)
            else:
                context.cluster.stop_redis(signal.SIGKILL)
                context.sleep(0.3)
                context.cluster.start_redis()
        accepted = {job_id for job_id in jobs if job_id}
        started = time.monotonic()
        context.wait_until(lambda: accepted <= _accepted_subjects(receiver), _DELIVERED_SECONDS)
        context.row.notes.append(f"{len(accepted)} events were delivered after {time.monotonic() - started:.1f} s")
        _check(context, receiver, accepted)


def _all_respond(urls: Sequence[str]) -> bool:
    return all(get_json(f"{url}/health")[0] == 200 for url in urls)


def _is_unlucky(message_id: str) -> bool:
    return sum(message_id.encode()) % 3 == 0


def _fail_some(request: Received) -> Reply:
    return Reply(500 if request.count == 1 and _is_unlucky(request.id) else 204)


def _accepted_subjects(receiver: Receiver) -> set[str]:
    """The jobs whose event was accepted."""
    received = [request for request in list(receiver.received) if _fail_some(request).status == 204]
    return {request.event["data"]["id"] for request in received}


def _check(context: FaultContext, receiver: Receiver, accepted: set[str]) -> None:
    row = context.row
    delivered = _accepted_subjects(receiver)
    row.lost += [f"the end of {job_id} was not delivered" for job_id in sorted(accepted - delivered)]
    bodies: defaultdict[str, set[bytes]] = defaultdict(set)
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for request in receiver.received:
        bodies[request.id].add(request.body)
        ids[request.event["data"]["id"]].add(request.id)
    row.wrong += [f"the body of {name} changed between tries" for name, each in bodies.items() if len(each) > 1]
    row.duplicated += [f"the end of {job_id} has {len(each)} ids" for job_id, each in ids.items() if len(each) > 1]


WEBHOOKS = Fault("webhooks", deliver_webhooks)
