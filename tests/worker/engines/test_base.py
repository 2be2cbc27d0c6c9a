import threading

import pytest

from worker.engines.base import Cancellation, EngineDied, EngineError, ScoringAborted, TransientEngineError


class TestCancellation:
    def test_it_stays_cancelled(self) -> None:
        cancellation = Cancellation()
        assert not cancellation.cancelled
        for _ in range(2):
            cancellation.cancel()
            assert cancellation.cancelled

    def test_wait_returns_as_soon_as_it_is_cancelled(self) -> None:
        cancellation = Cancellation()
        assert not cancellation.wait(0.01)
        threading.Timer(0.02, cancellation.cancel).start()
        assert cancellation.wait(10)

    def test_the_callback_is_called_once(self) -> None:
        cancellation = Cancellation()
        calls: list[str] = []
        cancellation.on_cancel(lambda: calls.append("stop"))
        assert calls == []
        cancellation.cancel()
        cancellation.cancel()
        assert calls == ["stop"]

    def test_a_late_callback_is_called_at_once(self) -> None:
        cancellation = Cancellation()
        cancellation.cancel()
        calls: list[str] = []
        cancellation.on_cancel(lambda: calls.append("stop"))
        assert calls == ["stop"]

    def test_the_callback_can_read_the_state(self) -> None:
        cancellation = Cancellation()
        states: list[bool] = []
        cancellation.on_cancel(lambda: states.append(cancellation.cancelled))
        cancelling = threading.Thread(target=cancellation.cancel, daemon=True)
        cancelling.start()
        cancelling.join(10)
        assert states == [True]

    def test_concurrent_cancel_and_on_cancel_call_the_callback_once(self) -> None:
        for _ in range(50):
            cancellation = Cancellation()
            barrier = threading.Barrier(3)
            calls: list[str] = []

            def cancel(cancellation: Cancellation = cancellation, barrier: threading.Barrier = barrier) -> None:
                barrier.wait(10)
                cancellation.cancel()

            threads = [threading.Thread(target=cancel) for _ in range(2)]
            for thread in threads:
                thread.start()
            barrier.wait(10)
            cancellation.on_cancel(lambda calls=calls: calls.append("stop"))  # type: ignore[misc]
            for thread in threads:
                thread.join(10)
            assert calls == ["stop"]


@pytest.mark.parametrize("kind", [TransientEngineError, EngineDied])
def test_retryable_errors_are_engine_errors(kind: type[EngineError]) -> None:
    assert issubclass(kind, EngineError)


def test_an_abort_is_not_an_engine_error() -> None:
    """An engine error would fail a job that another worker is going to score."""
    assert not issubclass(ScoringAborted, EngineError)
