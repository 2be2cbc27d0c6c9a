"""A Redis behind TLS: its certificate is checked by every connection, redis-py's and kombu's."""

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
    """The tests' Redis, reached through a TLS door."""
    with tls_proxy(redis_server, certificate) as url:
        yield url


def ask_as_the_ledger(url: str) -> None:
    with connect(url) as client:
        client.ping()


def ask_as_the_queue(url: str) -> None:
    app = make_celery(url)
    with app.connection() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
    app.close()


WAYS = (ask_as_the_ledger, ask_as_the_queue)


@pytest.mark.parametrize("ask", WAYS)
def test_a_certificate_of_a_known_authority_is_taken(
    tls_url: str, certificate: Path, ask: Callable[[str], None]
) -> None:
    ask(f"{tls_url}?ssl_ca_certs={certificate}")
    ask(f"{tls_url}?ssl_cert_reqs=required&ssl_ca_certs={certificate}")


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=required"])
def test_a_strangers_certificate_is_refused_without_being_asked_to(
    tls_url: str, query: str, ask: Callable[[str], None]
) -> None:
    with pytest.raises((redis.ConnectionError, OperationalError), match="CERTIFICATE_VERIFY_FAILED"):
        ask(f"{tls_url}{query}")


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("rediss://host:6380/0", "rediss://host:6380/0?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_ca_certs=/ca", "rediss://host/0?ssl_ca_certs=/ca&ssl_cert_reqs=required"),
        # Whoever says so means it.
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
    ],
)
def test_only_what_says_nothing_is_made_to_check(url: str, checked: str) -> None:
    assert require_certificates(url) == checked
