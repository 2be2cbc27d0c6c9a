"""Signatures, verified with the library that receivers use."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from api.webhooks.signatures import new_secret, parse_secret, sign
from shared.errors import InvalidRequest

BODY = '{"type": "job.succeeded", "data": {"id": "job-1", "query": "Köln"}}'.encode()


def headers(
    *secrets: str, message_id: str = "msg_1", timestamp: int | None = None, body: bytes = BODY
) -> dict[str, str]:
    moment = int(time.time()) if timestamp is None else timestamp
    signature = sign(secrets, message_id, moment, body)
    return {"webhook-id": message_id, "webhook-timestamp": str(moment), "webhook-signature": signature}


def test_receivers_verify_a_signature() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, headers(secret))["type"] == "job.succeeded"


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The example of Standard Webhooks' documentation."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_old_and_the_new_secret_are_both_accepted_during_a_rotation() -> None:
    old, new = new_secret(), new_secret()
    signed = headers(new, old)
    assert signed["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        Webhook(secret).verify(BODY, signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(BODY, headers(new))


@pytest.mark.parametrize(("name", "value"), [("webhook-id", "msg_2"), ("webhook-timestamp", str(int(time.time()) + 9))])
def test_the_signature_covers_the_id_and_the_time(name: str, value: str) -> None:
    secret = new_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers(secret) | {name: value})


def test_the_signature_covers_the_body() -> None:
    secret = new_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers(secret))


@given(st.binary(min_size=24, max_size=64), st.text(), st.from_regex(r"[a-z0-9_-]{1,40}", fullmatch=True))
def test_any_text_is_signed_as_the_library_expects(key: bytes, text: str, message_id: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = text.encode("utf-8", "replace")
    Webhook(secret).verify(body, headers(secret, message_id=message_id, body=body), json_parse=False)


def test_secrets_are_random_and_of_32_bytes() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(parse_secret(secret, "secret")) for secret in secrets} == {32}


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_" + base64.b64encode(b"a" * 23).decode(),
        "whsec_" + base64.b64encode(b"a" * 65).decode(),
        "whsec_" + base64.b64encode(b"a" * 32).decode().rstrip("="),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS?",
        "whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_Köln",
    ],
)
def test_a_malformed_secret_is_an_error_that_names_the_field_and_not_the_secret(secret: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_secret(secret, "webhook.secret")
    assert caught.value.param == "webhook.secret"
    assert caught.value.message == "webhook.secret must be whsec_ and the base64 form of 24 to 64 bytes"
    assert caught.value.__cause__ is None
