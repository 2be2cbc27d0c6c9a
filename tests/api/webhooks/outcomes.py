"""What tests of webhooks wait for and check: outcomes in the ledger, and signatures of what arrived."""

import base64

from standardwebhooks import Webhook

from tests.api.webhooks.conftest import Outbox, eventually
from tests.receivers import Received

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def verify(request: Received, *secrets: str) -> None:
    """Verify a request with each of the secrets, as a receiver does. Raises WebhookVerificationError."""
    for secret in secrets:
        assert Webhook(secret).verify(request.body, request.headers) == request.event


async def delivered(outbox: Outbox, count: int = 1) -> None:
    async def enough() -> bool:
        return (await outbox.deliveries.counts())["delivered"] >= count

    await eventually(enough)


async def eventually_failed(outbox: Outbox) -> None:
    async def failed() -> bool:
        return (await outbox.deliveries.counts())["failed"] == 1

    await eventually(failed)
