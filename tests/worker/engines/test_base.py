import threading

import pytest

from worker.engines.base import Cancellation, EngineDied, EngineError, ScoringAborted, TransientEngineError


class TestCancellation:
    def test_it_is_cancelled_once_and_for_good(self) -> None:
        cancellation = Cancellation()
        assert not cancellation.cancelled
        for _ in range(2):
            cancellation.cancel()
            assert cancellation.cancelled

    def test_whoever_waits_is_told_at_once(self) -> None:
        cancellation = Cancellation()
        assert not cancellation.wait(0.01)
        threading.Timer(0.02, cancellation.cancel).start()
        assert cancellation.wait(10)

    def test_it_calls_back_once(self) -> None:
        cancellation = Cancellation()
        calls: list[str] = []
        cancellation.on_cancel(lambda: calls.append("stop"))
        assert calls == []
        cancellation.cancel()
        cancellation.cancel()
        assert calls == ["stop"]

    def test_it_calls_back_at_once_when_it_was_cancelled_before(self) -> None:
        cancellation = Cancellation()
        cancellation.cancel()
        calls: list[str] = []
        cancellation.on_cancel(lambda: calls.append("stop"))
        assert calls == ["stop"]

    def test_the_callback_may_look_at_it(self) -> None:
        cancellation = Cancellation()
        seen: list[bool] = []
        cancellation.on_cancel(lambda: seen.append(cancellation.cancelled))
        cancelling = threading.Thread(target=cancellation.cancel, daemon=True)
        cancelling.start()
        cancelling.join(10)
        assert seen == [True]

    def test_of_many_who_cancel_and_listen_at_once_the_callback_hears_once(self) -> None:
        for _ in range(50):
            cancellation = Cancellation()
            together = threading.Barrier(3)
            calls: list[str] = []

            def cancel(cancellation: Cancellation = cancellation, together: threading.Barrier = together) -> None:
                together.wait(10)
                cancellation.cancel()

            threads = [threading.Thread(target=cancel) for _ in range(2)]
            for thread in threads:
                thread.start()
            together.wait(10)
            cancellation.on_cancel(lambda calls=calls: calls.append("stop"))  # type: ignore[misc]
            for thread in threads:
                thread.join(10)
            assert calls == ["stop"]


@pytest.mark.parametrize("kind", [TransientEngineError, EngineDied])
def test_what_may_be_tried_elsewhere_is_an_engines_error_too(kind: type[EngineError]) -> None:
    assert issubclass(kind, EngineError)


def test_an_abort_is_no_engines_error() -> None:
    """Or it would fail a job that somebody else is to score."""
    assert not issubclass(ScoringAborted, EngineError)
