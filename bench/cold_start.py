"""`make bench-cold`: compares a cold start of this service with a start of vLLM's own server, on the same weights.

The two take turns within one run. Our time runs from the HTTP request, sent while no worker exists, to its response;
Redis and the API are always up. Their time runs from the start of the process to its first response, which is the wait
of a caller when such a server starts on demand. A complete run also writes bench/results/cold_start.json, and one
measured cycle from zero workers to one and back as bench/results/zero_one_zero.svg.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench import machine, models, servers
from bench.__main__ import RESULTS, clear_settings, exit_on_sigterm, positive
from bench.cycle import Cycle, record
from bench.cycle_chart import zero_one_zero
from bench.generator import MeasurementFailed
from bench.idle_stack import Start, run_idle_stack
from infra.local.stack import StackError
from shared.errors import RerankqError
from shared.models import ModelSpec
from worker.process.startup import weight_files

PLAIN, STANDBY = "plain", "standby"
TARGETS = {PLAIN: 0.40, STANDBY: 0.15}
"""The largest acceptable ratios of our start time to that of vLLM's server."""
CHART = "zero_one_zero.svg"
_IDLE_SECONDS = 1.0
_CYCLE_IDLE_SECONDS = 5.0
_NO_CACHE = {"RERANKQ_SCORE_CACHE": "false"}


@dataclass(slots=True)
class Measured:
    """The starts, in the order of the rounds. `theirs_first` and `ours_first` began with an empty vLLM cache."""

    theirs_first: float | None = None
    ours_first: Start | None = None
    theirs: list[float] = field(default_factory=list)
    ours: dict[str, list[Start]] = field(default_factory=lambda: {PLAIN: [], STANDBY: []})
    cycle: Cycle | None = None
    failures: list[str] = field(default_factory=list)

    def ratio(self, way: str) -> float | None:
        """Return our median divided by theirs; None when either is missing."""
        if not self.theirs or not self.ours[way]:
            return None
        return median(start.seconds for start in self.ours[way]) / median(self.theirs)


class Run:
    """One run of the benchmark. It writes to `folder`, which the caller removes."""

    def __init__(self, folder: Path, *, rounds: int, starts: int, evict: bool) -> None:
        self.measured = Measured()
        self._folder = folder
        self._rounds = rounds
        self._starts = starts
        self._evict = evict
        self._model = folder / "cross-encoder"
        self._began = time.monotonic()

    def make_model(self) -> None:
        """Create the model that both servers load. Raises MeasurementFailed."""
        self._print("creating the cross-encoder")
        models.make_cross_encoder(self._model, self._folder / "model.log")

    def starts(self) -> None:
        """Measure all rounds. A failed start does not end the others."""
        with self._recording_failures("vLLM's server, first start"):
            self.measured.theirs_first = self._start_theirs()
        with self._recording_failures("rerankq, first start"):
            (self.measured.ours_first,) = self._start_ours(PLAIN, 1, VLLM_CACHE_ROOT=str(self._folder / "empty"))
        for number in range(1, self._rounds + 1):
            self._print(f"round {number} of {self._rounds}")
            with self._recording_failures("vLLM's server"):
                self.measured.theirs.append(self._start_theirs())
            for way in (PLAIN, STANDBY):
                with self._recording_failures(f"rerankq, {way}"):
                    self.measured.ours[way] += self._start_ours(way, self._starts)

    def cycle(self) -> None:
        """Record one cycle from zero workers to one and back."""
        with self._recording_failures("the cycle"):
            self._print("one cycle")
            with run_idle_stack(self._model, _CYCLE_IDLE_SECONDS, _NO_CACHE, standby=False) as idle_stack:
                self.measured.cycle = record(idle_stack, _CYCLE_IDLE_SECONDS)

    def _start_theirs(self) -> float:
        self._evict_weights()
        with servers.theirs(self._model, self._folder) as server:
            self._print(f"vLLM's server: {server.first_score_seconds:.2f} s")
            return server.first_score_seconds

    def _start_ours(self, way: str, count: int, **variables: str) -> list[Start]:
        starts: list[Start] = []
        with run_idle_stack(self._model, _IDLE_SECONDS, _NO_CACHE | variables, standby=way == STANDBY) as idle_stack:
            for number in range(count):
                self._evict_weights()
                query = {"model": idle_stack.model, "query": f"first {number}", "documents": ["of all"]}
                starts.append(idle_stack.wake(json.dumps(query)))
                self._print(f"rerankq, {way}: {starts[-1].seconds:.2f} s")
        return starts

    def _evict_weights(self) -> None:
        """With --evict, drop the weights from the page cache, so that the kernel reads them from the disk again."""
        if self._evict:
            for path in weight_files(ModelSpec(name="model", source=str(self._model))):
                with path.open("rb") as weights:
                    os.fsync(weights.fileno())
                    os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @contextmanager
    def _recording_failures(self, label: str) -> Iterator[None]:
        try:
            yield
        except (MeasurementFailed, StackError, RerankqError, OSError) as error:
            self.measured.failures.append(f"{label}: {error}")
            self._print(f"{label}: FAILED: {error}")

    def _print(self, message: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {message}", file=sys.stderr, flush=True)


def table(measured: Measured) -> str:
    """Return the verdicts, the stages and the failures as Markdown."""
    lines = ["| start | median s | over vLLM's | target | | starts |", "|---|---:|---:|---:|---|---|"]
    if measured.theirs:
        lines.append(f"| vLLM's server | {median(measured.theirs):.2f} | 1.00 | | | {_list(measured.theirs)} |")
    for way, starts in measured.ours.items():
        if starts:
            seconds = [start.seconds for start in starts]
            ratio = measured.ratio(way)
            verdict = "" if ratio is None else "met" if ratio <= TARGETS[way] else "missed"
            share = "" if ratio is None else f"{ratio:.3f}"
            cells = (f"rerankq, {way}", f"{median(seconds):.2f}", share, f"<= {TARGETS[way]:.2f}", verdict)
            lines.append(f"| {' | '.join(cells)} | {_list(seconds)} |")
    if measured.theirs_first is not None:
        lines.append(f"| vLLM's server, nothing cached | {measured.theirs_first:.2f} | | | | |")
    if measured.ours_first is not None:
        lines.append(f"| rerankq, plain, nothing cached | {measured.ours_first.seconds:.2f} | | | | |")
    lines += ["", *_stages(measured)]
    if measured.failures:
        lines += ["", "Failed:", *(f"- {failure}" for failure in measured.failures)]
    return "\n".join(lines)


def _stages(measured: Measured) -> Iterator[str]:
    """Yield the rows of a table with the median time of each stage, in order."""
    ways = {way: starts for way, starts in measured.ours.items() if starts}
    if not ways:
        return
    yield f"| stage, median s | {' | '.join(ways)} |"
    yield f"|---|{'---:|' * len(ways)}"
    for stage in dict.fromkeys(stage for starts in ways.values() for start in starts for stage in start.stages):
        cells = (f"{median(start.stages.get(stage, 0.0) for start in starts):.2f}" for starts in ways.values())
        yield f"| {stage} | {' | '.join(cells)} |"
    again = (f"{median(start.again_seconds for start in starts):.3f}" for starts in ways.values())
    yield f"| the same call again | {' | '.join(again)} |"


def _list(seconds: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in seconds)


def write(measured: Measured, folder: Path, name: str, plan: dict[str, object]) -> list[Path]:
    """Write the JSON, and the chart when a cycle was measured. Returns the paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "machine": machine.describe(),
        "versions": machine.versions(),
        "plan": plan,
        "ratios": {way: measured.ratio(way) for way in TARGETS},
        "targets": TARGETS,
        **asdict(measured),
    }
    paths = [folder / f"{name}.json"]
    paths[0].write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if measured.cycle is not None:
        paths.append(folder / CHART)
        paths[1].write_text(zero_one_zero(measured.cycle))
    return paths


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a usage message when an option is invalid."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cold_start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=positive, default=3, help="how often each server has its turn; default: %(default)s"
    )
    parser.add_argument("--starts", type=positive, default=2, help="our starts in one turn; default: %(default)s")
    parser.add_argument("--evict", action="store_true", help="drop the weights from the page cache before each start")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: one round, one start, no cycle; writes no file"
    )
    parser.add_argument("--name", default="cold_start", help="write bench/results/NAME.json; default: %(default)s")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = options.starts = 1
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    clear_settings(os.environ)
    with tempfile.TemporaryDirectory(prefix="rerankq-cold-", ignore_cleanup_errors=True) as folder:
        run = Run(Path(folder), rounds=options.rounds, starts=options.starts, evict=options.evict)
        interrupted = False
        try:
            run.make_model()
            run.starts()
            if not options.quick:
                run.cycle()
        except KeyboardInterrupt:
            # Print what was measured so far.
            interrupted = True
    print(table(run.measured))
    if not (options.quick or interrupted):
        plan = {"rounds": options.rounds, "starts": options.starts, "evict": options.evict}
        for path in write(run.measured, RESULTS, options.name, plan):
            print(f"written: {path}", file=sys.stderr)
    return 130 if interrupted else 1 if run.measured.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
