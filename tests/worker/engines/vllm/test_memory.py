import pytest

from worker.engines.vllm.memory import RECOVERY_SECONDS, MemoryLimit, is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's error."""


class OwnOutOfMemoryError(OutOfMemoryError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Tried to allocate 2.00 GiB"),
        OwnOutOfMemoryError(),
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."),
    ],
    ids=str,
)
def test_errors_of_every_allocator_are_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory"), KeyError("x")]
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_without_a_failure_any_step_is_allowed() -> None:
    limit = MemoryLimit(full=100)
    assert not limit.active
    assert limit.allows(10**6, now=0.0)


def test_each_failure_halves_the_step_that_failed() -> None:
    limit = MemoryLimit(full=100)
    assert [limit.halve(tokens, now=0.0) for tokens in (1000, 30, 30, 1, 1)] == [50, 15, 7, 1, 1]
    assert limit.allows(1, now=0.0)
    assert not limit.allows(2, now=0.0)


def test_a_limit_doubles_with_time_and_ends_at_a_full_step() -> None:
    limit = MemoryLimit(full=100)
    limit.halve(60, now=5.0)
    assert [limit.allows(31, now) for now in (5.0, 4.9 + RECOVERY_SECONDS, 5.0 + RECOVERY_SECONDS)] == [
        False,
        False,
        True,
    ]
    assert limit.active
    assert limit.allows(10**6, now=5.0 + 2 * RECOVERY_SECONDS)
    assert not limit.active


def test_a_failure_starts_the_time_again() -> None:
    limit = MemoryLimit(full=100)
    limit.halve(100, now=0.0)
    limit.halve(50, now=RECOVERY_SECONDS - 1)
    assert not limit.allows(26, now=RECOVERY_SECONDS + 1)
