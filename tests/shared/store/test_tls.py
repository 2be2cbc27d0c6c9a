"""Redis over TLS: connections of redis-py and of kombu verify its certificate."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from shared.queue.celery_app import make_celery
from shared.store.client import connect, require_certificates
from tests.tls import make_certificate, tls_proxy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_url(redis_server: str, certificate: Path) -> Iterator[str]:
    """The URL of a TLS proxy in front of the tests' Redis."""
    with tls_proxy(redis_server, certificate) as url:
        yield url


def connect_with_redis_py(url: str) -> None:
    with connect(url) as client:
        client.ping()


def connect_with_kombu(url: str) -> None:
    app = make_celery(url)
    with app.connection() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
    app.close()


CONNECT_FUNCTIONS = (connect_with_redis_py, connect_with_kombu)


@pytest.mark.parametrize("connect_to", CONNECT_FUNCTIONS)
def test_certificate_of_a_trusted_authority_is_accepted(
    tls_url: str, certificate: Path, connect_to: Callable[[str], None]
) -> None:
    connect_to(f"{tls_url}?ssl_ca_certs={certificate}")
    connect_to(f"{tls_url}?ssl_cert_reqs=required&ssl_ca_certs={certificate}")


@pytest.mark.parametrize("connect_to", CONNECT_FUNCTIONS)
@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=required"])
def test_untrusted_certificate_is_rejected_by_default(
    tls_url: str, query: str, connect_to: Callable[[str], None]
) -> None:
    with pytest.raises((redis.ConnectionError, OperationalError), match="CERTIFICATE_VERIFY_FAILED"):
        connect_to(f"{tls_url}{query}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("rediss://host:6380/0", "rediss://host:6380/0?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_ca_certs=/ca", "rediss://host/0?ssl_ca_certs=/ca&ssl_cert_reqs=required"),
        # An explicit setting is kept.
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
    ],
)
def test_verification_is_added_to_urls_without_a_setting(url: str, expected: str) -> None:
    assert require_certificates(url) == expected
