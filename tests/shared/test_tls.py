"""A Redis behind TLS: its certificate is checked by every connection, redis-py's and kombu's."""

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kombu.exceptions import OperationalError

from shared.celery_app import make_celery
from shared.redis_client import checking_certificates, connect


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that is its own authority, with its key in the same file."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs openssl, which makes a certificate")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "-", "-out", "-"]
    path.write_bytes(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)
    return path


@pytest.fixture(scope="module")
def tls_url(redis_server: str, certificate: Path) -> Iterator[str]:
    """The tests' Redis, reached through a TLS door."""
    target = urlsplit(redis_server).port
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(forward(reader, behind_writer), forward(behind_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "localhost", 0, family=2, ssl=context))
    thread = threading.Thread(target=loop.run_forever, name="tls-door", daemon=True)
    thread.start()
    yield f"rediss://localhost:{server.sockets[0].getsockname()[1]}/0"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


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
    assert checking_certificates(url) == checked
