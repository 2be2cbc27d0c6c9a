"""What a payload store does, and what all of them share: valid names, ranges, blocks and errors.

Refuses to know where the bytes are.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from shared.errors import PayloadMissing, PayloadsFull, PayloadsUnavailable

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
"""How much the stores read or write at once. A block costs a thread switch or a round trip, and memory."""
RETRY_AFTER_SECONDS = 5

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}(/[A-Za-z0-9._-]{1,200}){0,9}")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A complete object. `bytes` is its size; `modified_at` is when it was written, in Unix seconds."""

    name: str
    bytes: int
    modified_at: float


class PayloadStore(Protocol):
    """Named objects of up to many GB. Several processes may use the same store at once.

    A name consists of parts of letters, digits and `._-`, joined by "/"; other names raise ValueError. No object's name
    may be a folder in another's: a folder cannot hold both "a" and "a/b".
    Every method raises PayloadsUnavailable when the store is unreachable or refuses access.
    """

    async def write(self, name: str, chunks: AsyncIterable[bytes], *, expires_at: float) -> int:
        """Store an object, replace an existing one, and return its size in bytes.

        The object becomes visible when it is complete. If `chunks` raises, or the call is canceled, nothing is stored
        and the exception propagates. `expires_at` (Unix seconds) matters only to stores that delete expired objects
        themselves. Raises PayloadsFull.
        """

    def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Yield the bytes [start, end) in chunks of at most 1 MiB, up to the object's end if `end` is None or larger.

        A reader continues with the old object when it is replaced or deleted, or raises. The first chunk raises
        PayloadMissing if the object does not exist.
        """

    async def delete(self, name: str) -> None:
        """Delete an object. Does nothing when it does not exist."""

    def list(self) -> AsyncGenerator[StoredObject]:
        """Yield all complete objects in any order. May omit those written or deleted meanwhile."""

    async def remove_abandoned(self, older_than_seconds: float) -> int:
        """Delete the remains of writes that were interrupted at least this long ago. Returns how many writes."""

    async def close(self) -> None:
        """Release connections. The Redis client stays open: it belongs to the caller."""


def check_name(name: str) -> str:
    """The name. Raises ValueError unless it is valid; a valid name never leads out of a store's folder."""
    if not _NAME.fullmatch(name) or not {".", ".."}.isdisjoint(name.split("/")):
        raise ValueError(f"not a name of a stored object: {name[:100]!r}")
    return name


def is_name(name: str) -> bool:
    """Whether the name is valid. Other programs may have put objects with other names beside ours."""
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def check_range(start: int, end: int | None) -> None:
    """Raises ValueError for a range that starts before the object, or ends before it starts."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"not a range of bytes: [{start}, {end})")


async def blocks(chunks: AsyncIterable[bytes], size: int = BLOCK_BYTES) -> AsyncGenerator[bytes]:
    """Cut the chunks into blocks of exactly `size` bytes; the last one may be shorter, and none is empty.

    An HTTP body arrives in chunks of 64 KiB, too small for a thread switch or a round trip each.
    """
    waiting: list[bytes] = []
    length = 0
    async for chunk in chunks:
        waiting.append(chunk)
        length += len(chunk)
        if length >= size:
            joined = b"".join(waiting)
            rest = length % size
            for start in range(0, length - rest, size):
                yield joined[start : start + size]
            waiting, length = [joined[length - rest :]], rest
    if length:
        yield b"".join(waiting)


async def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work that must not be interrupted. A cancellation takes effect when it has ended."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def unavailable(cause: BaseException) -> PayloadsUnavailable:
    """An error for a store that cannot be used now. `cause` is only logged: it may name paths and hosts."""
    logger.warning("the payload store cannot be used", extra={"error": _first_line(cause)})
    return PayloadsUnavailable("the payload store cannot be used now; try again", retry_after=RETRY_AFTER_SECONDS)


def full(cause: object) -> PayloadsFull:
    """An error for a store without room for an object. `cause` is only logged."""
    logger.warning("the payload store is full", extra={"error": _first_line(cause)})
    return PayloadsFull("the payload store is full; delete files or try again later")


def missing(name: str) -> PayloadMissing:
    """An error for an object that does not exist."""
    return PayloadMissing(f"the payload store has no object named {name!r}")


def _first_line(cause: object) -> str:
    return str(cause).partition("\n")[0]
