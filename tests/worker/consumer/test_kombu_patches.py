from typing import Any

import kombu.utils.functional
import pytest
import redis
from kombu.exceptions import OperationalError
from kombu.transport.redis import Transport
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from shared.queue.celery_app import make_celery
from tests.shared.support import dead_redis_url
from worker.consumer.kombu_patches import CONNECT_SECONDS, reconnect_when_refused, use_constant_retry


def test_the_pause_between_connection_attempts_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu.utils.functional, "sleep", lambda _: None)
    app = make_celery(dead_redis_url())
    use_constant_retry(app)
    pauses: list[float] = []
    with app.connection_for_read() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(lambda _, pause: pauses.append(pause), max_retries=20)
    assert pauses == [CONNECT_SECONDS] * 20
    app.close()


class TestReconnectWhenRefused:
    @pytest.fixture(autouse=True)
    def unpatched_transport(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = tuple(error for error in Transport.connection_errors if error is not ResponseError)
        monkeypatch.setattr(Transport, "connection_errors", known)

    @pytest.mark.parametrize("refusal", [OutOfMemoryError, ReadOnlyError, ResponseError])
    def test_a_refused_command_counts_as_a_lost_connection(self, redis_url: str, refusal: type[Exception]) -> None:
        assert not issubclass(refusal, Transport.connection_errors)
        reconnect_when_refused()
        app = make_celery(redis_url)
        # Celery reads the connection's errors, kombu the channel's.
        with app.connection_for_read() as connection:
            channel: Any = connection.channel()
            assert issubclass(refusal, connection.connection_errors)
            assert issubclass(refusal, channel.connection_errors)
        app.close()

    def test_patching_twice_changes_nothing(self) -> None:
        reconnect_when_refused()
        known = Transport.connection_errors
        reconnect_when_refused()
        assert Transport.connection_errors == known
        assert redis.ConnectionError in known
