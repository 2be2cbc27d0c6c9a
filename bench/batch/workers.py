"""How the throughput of one batch grows with the number of workers.

Each worker scores one shard at a time and waits most of it, so that the processors of the machine are no limit.
"""

from bench.batch.context import Context
from bench.batch.inputs import Shape
from bench.batch.report import Measurement

SHARE = 0.95
NUMBERS = (1, 2, 4)
SHARD_SECONDS = 0.2
DOCUMENTS = 20


def workers(context: Context) -> list[Measurement]:
    """One row for each number of workers above one. Each batch has lines for the same time."""
    rates: dict[int, float] = {}
    for number in NUMBERS:
        shape = Shape(round(number * context.sizes.worker_seconds / SHARD_SECONDS), DOCUMENTS)
        with context.running_lexical(SHARD_SECONDS, number, RERANKQ_CONCURRENCY="1") as service:
            context.tell(f"{number} workers, {shape.lines:,} lines")
            file_id = service.upload_file(context.inputs.path(shape))
            rates[number] = service.run_batch(file_id, shape).pairs_per_second
    return [_row(number, rates) for number in NUMBERS[1:]]


def _row(number: int, rates: dict[int, float]) -> Measurement:
    share = rates[number] / (number * rates[1])
    return Measurement(
        f"{number} workers, one shard of {SHARD_SECONDS * 1000:g} ms at a time: throughput over {number} times that of "
        "one worker",
        f"{share:.3f} ({rates[number]:,.1f} of {number} x {rates[1]:,.1f} pairs/s)",
        f">= {SHARE:g}",
        share >= SHARE,
        {"pairs_per_second": rates[number], "of_one_worker": rates[1]},
    )
