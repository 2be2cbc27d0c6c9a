"""What the cases share: the sizes of the run, the inputs, a folder, and the peaks of memory of all lexical cases."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.batch.inputs import Inputs, Shape
from bench.batch.sampling import Peaks, RedisTime
from bench.batch.service import BatchOutcome, Deadline, Service, lexical, running


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each case does; the seconds are approximate.

    `pairs`, `lines` and `beside` are shapes of inputs; the calls run beside a batch of the last one.
    `client_lines`: the lines that the client's own mode ranks. `engine_seconds`: how long the batch with vLLM takes,
    and `bare_seconds` each measurement of the bare engine. `worker_seconds`: how long each number of workers works.
    `upload_blocks`: the uploaded file, in MiB.
    """

    pairs: Shape
    lines: Shape
    beside: Shape
    client_lines: int
    calls: int
    engine_seconds: float
    bare_seconds: float
    worker_seconds: float
    upload_blocks: int


FULL = Sizes(
    pairs=Shape(10_000, 100),
    lines=Shape(1_000_000, 1),
    beside=Shape(10_000, 100),
    client_lines=1000,
    calls=200,
    engine_seconds=75.0,
    bare_seconds=20.0,
    worker_seconds=40.0,
    upload_blocks=1024,
)
QUICK = Sizes(
    pairs=Shape(500, 100),
    lines=Shape(50_000, 1),
    # Longer than a twentieth, so that it runs for as long as the calls.
    beside=Shape(2000, 100),
    client_lines=100,
    calls=40,
    engine_seconds=8.0,
    bare_seconds=3.0,
    worker_seconds=6.0,
    upload_blocks=51,
)


@dataclass(slots=True)
class Context:
    """One run. Each case gets a new `deadline`. `tell` prints a line of progress."""

    sizes: Sizes
    inputs: Inputs
    folder: Path
    tell: Callable[[str], None]
    deadline: Deadline = field(default_factory=lambda: Deadline(0))
    peaks: Peaks = field(default_factory=Peaks)
    redis_time: dict[Shape, RedisTime] = field(default_factory=dict)
    """The processor time of Redis per line, for the inputs whose lines are one shard each."""

    @contextmanager
    def running_lexical(self, delay_seconds: float = 0.0, workers: int = 1, **variables: str) -> Iterator[Service]:
        """Run the service with the lexical engine, and keep its peaks of memory."""
        options = lexical(self.folder, delay_seconds, workers, **variables)
        with running(options, self.deadline, self.tell) as service:
            try:
                yield service
            finally:
                self.peaks.merge(service.sampler.peaks)

    def run_input(self, service: Service, shape: Shape) -> BatchOutcome:
        """Upload an input and run it as a batch. Keeps the time of Redis per line."""
        path = self.inputs.path(shape)
        self.tell(f"uploading {path.stat().st_size / 2**20:,.0f} MiB")
        file_id = service.upload_file(path)
        self.tell(f"running {shape.lines:,} lines with {shape.documents} documents")
        before = RedisTime.read(service.stack.redis_url)
        outcome = service.run_batch(file_id, shape)
        self.redis_time[shape] = RedisTime.read(service.stack.redis_url).since(before, shape.lines)
        return outcome
