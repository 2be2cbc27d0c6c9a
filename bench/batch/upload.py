"""How long the upload of a large file takes, and how much memory of the API, against writing the same bytes."""

import os
import statistics
import time
from itertools import repeat
from pathlib import Path

from bench.batch.context import Context
from bench.batch.report import Measurement
from bench.batch.sampling import peak_memory, restart_peak
from bench.batch.service import BLOCK_BYTES

RATIO = 3.0
GROWTH_MIB = 50
_WARM_UP_BLOCKS = 8


def upload(context: Context) -> list[Measurement]:
    """The upload, between two plain writes to the same disk. The blocks come from memory, so nothing is read."""
    blocks, block = context.sizes.upload_blocks, os.urandom(BLOCK_BYTES)
    with context.running_lexical() as service:
        # The first upload loads code and grows buffers, once.
        service.upload(_WARM_UP_BLOCKS * BLOCK_BYTES, repeat(block, _WARM_UP_BLOCKS))
        context.tell(f"writing and uploading {blocks:,} MiB")
        plain = [_write(context.folder / "plain", block, blocks)]
        # Earlier writes must not wait for the disk during this one.
        os.sync()
        api = service.stack.child("api").pid
        memory = restart_peak(api)
        began = time.perf_counter()
        service.upload(blocks * BLOCK_BYTES, repeat(block, blocks))
        seconds = time.perf_counter() - began
        growth = (peak_memory(api) - memory) / 2**20
        plain.append(_write(context.folder / "plain", block, blocks))
    mean = statistics.mean(plain)
    size = f"{blocks:,} MiB"
    return [
        Measurement(
            f"upload of {size}: seconds, against a plain write with fsync before and after",
            f"{seconds:.2f} s, {seconds / mean:.2f}x of {mean:.2f} s ({plain[0]:.2f} and {plain[1]:.2f})",
            f"<= {RATIO:g}x",
            seconds <= RATIO * mean,
            {"seconds": seconds, "plain_seconds": plain},
        ),
        Measurement(
            f"upload of {size}: growth of the API's memory",
            f"{growth:.0f} MiB",
            f"< {GROWTH_MIB} MiB",
            growth < GROWTH_MIB,
            {"before_mib": memory / 2**20},
        ),
    ]


def _write(path: Path, block: bytes, blocks: int) -> float:
    """The seconds for writing the blocks to a new file, with one fsync at the end. Deletes the file."""
    os.sync()
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(blocks):
            file.write(block)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds
