"""`make bench-cold`: from an HTTP request that finds no worker to its answer, against the start of vLLM's own server.

Both load the same weights, in turns, within one run. Theirs counts from the start of its process to its first answer,
which is what a caller waits for where such a server is started on demand; ours from the request, with Redis and the
API up, as they always are. A whole run also writes bench/results/cold_start.json, and one measured cycle from no
worker to one and back as bench/results/zero_one_zero.svg.
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
from bench.__main__ import RESULTS, forget_settings, positive, terminated
from bench.cycle import Cycle, record
from bench.cycle_chart import zero_one_zero
from bench.generator import MeasurementFailed
from bench.idle_stack import Start, sleeping
from infra.local.stack import StackError
from shared.errors import RerankqError
from shared.models import ModelSpec
from worker.process.startup import weight_files

PLAIN, STANDBY = "plain", "standby"
TARGETS = {PLAIN: 0.40, STANDBY: 0.15}
"""Shares of the time that vLLM's own server takes."""
PICTURE = "zero_one_zero.svg"
_IDLE_SECONDS = 1.0
_CYCLE_IDLE_SECONDS = 5.0
_NO_CACHE = {"RERANKQ_SCORE_CACHE": "false"}


@dataclass(slots=True)
class Measured:
    """Every start, in the order of the rounds; before the two first ones vLLM's cache was empty."""

    theirs_first: float | None = None
    ours_first: Start | None = None
    theirs: list[float] = field(default_factory=list)
    ours: dict[str, list[Start]] = field(default_factory=lambda: {PLAIN: [], STANDBY: []})
    cycle: Cycle | None = None
    failures: list[str] = field(default_factory=list)

    def ratio(self, way: str) -> float | None:
        """Our median over theirs; None where either is missing."""
        if not self.theirs or not self.ours[way]:
            return None
        return median(start.seconds for start in self.ours[way]) / median(self.theirs)


class Run:
    """One run, in a folder that its caller removes."""

    def __init__(self, folder: Path, *, rounds: int, starts: int, evict: bool) -> None:
        self.measured = Measured()
        self._folder = folder
        self._rounds = rounds
        self._starts = starts
        self._evict = evict
        self._model = folder / "cross-encoder"
        self._began = time.monotonic()

    def make_model(self) -> None:
        """Raises MeasurementFailed: without it there is nothing to measure."""
        self._tell("making the cross-encoder")
        models.make_cross_encoder(self._model, self._folder / "model.log")

    def starts(self) -> None:
        """Every round. What fails, fails alone."""
        with self._failing_alone("vLLM's server, first start"):
            self.measured.theirs_first = self._start_theirs()
        with self._failing_alone("rerankq, first start"):
            (self.measured.ours_first,) = self._start_ours(PLAIN, 1, VLLM_CACHE_ROOT=str(self._folder / "empty"))
        for number in range(1, self._rounds + 1):
            self._tell(f"round {number} of {self._rounds}")
            with self._failing_alone("vLLM's server"):
                self.measured.theirs.append(self._start_theirs())
            for way in (PLAIN, STANDBY):
                with self._failing_alone(f"rerankq, {way}"):
                    self.measured.ours[way] += self._start_ours(way, self._starts)

    def cycle(self) -> None:
        """One cycle, after which the worker is gone."""
        with self._failing_alone("the cycle"):
            self._tell("one cycle")
            with sleeping(self._model, _CYCLE_IDLE_SECONDS, _NO_CACHE, standby=False) as sleeper:
                self.measured.cycle = record(sleeper, _CYCLE_IDLE_SECONDS)

    def _start_theirs(self) -> float:
        self._forget_weights()
        with servers.theirs(self._model, self._folder) as server:
            self._tell(f"vLLM's server: {server.first_score_seconds:.2f} s")
            return server.first_score_seconds

    def _start_ours(self, way: str, count: int, **variables: str) -> list[Start]:
        starts: list[Start] = []
        with sleeping(self._model, _IDLE_SECONDS, _NO_CACHE | variables, standby=way == STANDBY) as sleeper:
            for number in range(count):
                self._forget_weights()
                query = {"model": sleeper.model, "query": f"first {number}", "documents": ["of all"]}
                starts.append(sleeper.wake(json.dumps(query)))
                self._tell(f"rerankq, {way}: {starts[-1].seconds:.2f} s")
        return starts

    def _forget_weights(self) -> None:
        """Have the kernel read the weights from the disk again, if that is asked for."""
        if self._evict:
            for path in weight_files(ModelSpec(name="model", source=str(self._model))):
                with path.open("rb") as weights:
                    os.fsync(weights.fileno())
                    os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @contextmanager
    def _failing_alone(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MeasurementFailed, StackError, RerankqError, OSError) as error:
            self.measured.failures.append(f"{what}: {error}")
            self._tell(f"{what}: FAILED: {error}")

    def _tell(self, what: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {what}", file=sys.stderr, flush=True)


def table(measured: Measured) -> str:
    """The verdicts and the stages as Markdown, and what failed."""
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
    """Where the time goes: medians of each stage, in their order."""
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
    """The JSON, and the picture of the cycle if there was one; answers the files."""
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
        paths.append(folder / PICTURE)
        paths[1].write_text(zero_one_zero(measured.cycle))
    return paths


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options. Exits with a usage message for wrong ones."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cold_start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each; default: %(default)s")
    parser.add_argument("--starts", type=positive, default=2, help="of ours in a turn; default: %(default)s")
    parser.add_argument("--evict", action="store_true", help="drop the weights from the page cache before each start")
    parser.add_argument("--quick", action="store_true", help="one round of one start and no cycle; writes nothing")
    parser.add_argument("--name", default="cold_start", help="write bench/results/NAME.json; default: %(default)s")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = options.starts = 1
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, terminated)
    forget_settings(os.environ)
    with tempfile.TemporaryDirectory(prefix="rerankq-cold-", ignore_cleanup_errors=True) as folder:
        run = Run(Path(folder), rounds=options.rounds, starts=options.starts, evict=options.evict)
        interrupted = False
        try:
            run.make_model()
            run.starts()
            if not options.quick:
                run.cycle()
        except KeyboardInterrupt:
            # What was measured is worth a table.
            interrupted = True
    print(table(run.measured))
    if not (options.quick or interrupted):
        plan = {"rounds": options.rounds, "starts": options.starts, "evict": options.evict}
        for path in write(run.measured, RESULTS, options.name, plan):
            print(f"written: {path}", file=sys.stderr)
    return 130 if interrupted else 1 if run.measured.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
