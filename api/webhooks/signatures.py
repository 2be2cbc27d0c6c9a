"""Signs webhooks as Standard Webhooks (standardwebhooks.com) describes it, with HMAC-SHA256."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from secrets import token_bytes

from shared.errors import InvalidRequest

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64


def new_secret() -> str:
    """Generate a secret of 32 random bytes: `whsec_` and their base64 form."""
    return PREFIX + base64.b64encode(token_bytes(32)).decode()


def parse_secret(text: str, param: str) -> bytes:
    """Return the key in a secret. Raises InvalidRequest, which names the field `param` and does not show the secret."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        message = f"{param} must be {PREFIX} and the base64 form of {MIN_BYTES} to {MAX_BYTES} bytes"
        # Without the cause, whose text may show a part of the secret.
        raise InvalidRequest(message, param=param) from None
    return key


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header webhook-signature: one signature for each secret, so that receivers accept any of them.

    `timestamp` is in Unix seconds. Raises InvalidRequest for a malformed secret.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(parse_secret(secret, "secret"), signed, "sha256") for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
