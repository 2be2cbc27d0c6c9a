"""Recognizes that a step ran out of memory, and limits the next steps. Imports nothing of vLLM or torch."""

RECOVERY_SECONDS = 60.0
"""A limit is doubled after this time without another failure: what else used the device's memory may have ended."""
_MESSAGES = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a step failed for want of memory, on a GPU or a CPU."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    # torch.AcceleratorError and the errors of cuBLAS and of the CPU's allocator are plain RuntimeErrors.
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


class MemoryLimit:
    """The most tokens in a step after the engine ran out of memory. Times are seconds of the caller's clock."""

    def __init__(self, full: int) -> None:
        """`full` is the token limit of a step with enough memory."""
        self._full = full
        self._tokens: int | None = None
        self._changed_at = 0.0

    @property
    def active(self) -> bool:
        return self._tokens is not None

    def halve(self, failed_tokens: int, now: float) -> int:
        """Limit steps to half of the one that failed. Returns the new limit."""
        self._tokens = max(1, min(failed_tokens, self._tokens or self._full) // 2)
        self._changed_at = now
        return self._tokens

    def allows(self, tokens: int, now: float) -> bool:
        """Whether a step may have this many tokens."""
        while self._tokens is not None and now - self._changed_at >= RECOVERY_SECONDS:
            self._changed_at += RECOVERY_SECONDS
            self._tokens = self._tokens * 2 if self._tokens * 2 < self._full else None
        return self._tokens is None or tokens <= self._tokens
