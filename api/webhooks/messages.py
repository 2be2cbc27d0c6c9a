"""The headers of a webhook: Standard Webhooks' id, time and signature."""

from collections.abc import Sequence

from api import VERSION
from api.webhooks.signatures import sign


def message_headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one try. `timestamp` is its time in Unix seconds: receivers refuse old ones."""
    return {
        "content-type": "application/json",
        "user-agent": f"rerankq/{VERSION}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id, timestamp, body),
    }
