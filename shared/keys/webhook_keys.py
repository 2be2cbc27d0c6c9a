"""Keys of webhooks: their endpoints, and the outbox of deliveries."""

from shared.keys import PREFIX

ENDPOINTS = f"{PREFIX}webhook_endpoints"
LANES = f"{PREFIX}webhook_lanes"
COUNTS = f"{PREFIX}webhook_counts"
RUNNER_LEADER = f"{PREFIX}webhook_leader"


def endpoint_field(owner: str, endpoint_id: str) -> str:
    """The field of an endpoint in the hash of all of them; an owner's fields begin with that of the empty id."""
    return f"{owner}/{endpoint_id}"


def delivery(delivery_id: str) -> str:
    return f"{PREFIX}webhook_delivery:{delivery_id}"


def lane(name: str) -> str:
    return f"{PREFIX}webhook_lane:{name}"


def pending(owner: str) -> str:
    return f"{PREFIX}webhook_pending:{owner}"


def deliveries(owner: str, endpoint_id: str) -> str:
    """The list of the deliveries to an endpoint."""
    return f"{PREFIX}webhook_deliveries:{endpoint_field(owner, endpoint_id)}"
