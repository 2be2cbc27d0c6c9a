"""`make bench-peers`: this service and other software with the same weights and the same loads, in one table.

Servers get the load over HTTP. The libraries score in a loop without a server, 32 pairs at a time (one at a time where
the load has one connection): an upper bound for a server around them. Everything runs with its own defaults, one after
the other; `vllm-float32` is vLLM's server with the precision of the weights. bench/README.md explains the loads.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from bench import machine, models, servers
from bench.__main__ import RESULTS, clear_settings, exit_on_sigterm, positive
from bench.cases import Case, Measured, spread
from bench.generator import MeasurementFailed
from bench.measurements import Measurements, Plan
from bench.peers.infinity import INFINITY, infinity
from bench.peers.loops import BATCH, LOOPS, run_loop
from bench.servers import OURS, THEIRS, Server
from infra.local.stack import StackError
from shared.errors import RerankqError

LOADS: Mapping[str, Case] = {
    "32 x 20 x 100": Case("", "pairs/s", True, None, shape=(32, 20, 100), value="pairs"),
    "32 x 20 x 5": Case("", "pairs/s", True, None, shape=(32, 20, 5), value="pairs"),
    "64 x 1 x 100": Case("", "pairs/s", True, None, shape=(64, 1, 100), value="pairs"),
    "64 x 1 x 5": Case("", "pairs/s", True, None, shape=(64, 1, 5), value="pairs"),
    "1 x 1 x 100": Case("", "ms", False, None, shape=(1, 1, 100), value="p50"),
}
"""Connections x documents of a request x words of a document."""
LOOP_LOADS = {"32 x 20 x 100": (BATCH, 100), "32 x 20 x 5": (BATCH, 5), "1 x 1 x 100": (1, 100)}
"""The loads that a loop without a server has, as (pairs at once, words)."""
FLOAT32 = "vllm-float32"
PEERS: Mapping[str, str] = {
    OURS: "rerankq",
    THEIRS: "vLLM's server",
    FLOAT32: "vLLM's server, float32",
    INFINITY: "Infinity",
    **{name: f"{loop.title}, a loop" for name, loop in LOOPS.items()},
}


class Peers:
    """One run. It writes to `folder`, which the caller removes."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._model = folder / "cross-encoder"
        self._began = time.monotonic()
        self._measurements = Measurements(plan, self._model, self._tell, LOADS)

    @property
    def measured(self) -> Measured:
        """The results so far."""
        return self._measurements.measured

    def run(self, peers: Sequence[str]) -> None:
        """Measure all rounds. A peer that fails does not end the others. Raises MeasurementFailed without a model."""
        models.make_cross_encoder(self._model, self._folder / "model.log")
        for number in range(1, self._plan.rounds + 1):
            self._measurements.where = f"round {number} of {self._plan.rounds}"
            for peer in peers:
                self._tell(f"{peer}: starting")
                try:
                    self._measure(peer)
                except (MeasurementFailed, StackError, RerankqError, OSError) as error:
                    self.measured.failures.append(f"{self._measurements.where}: {PEERS[peer]}: {error}")
                    self._tell(f"{peer}: FAILED: {error}")

    def _measure(self, peer: str) -> None:
        if peer in LOOPS:
            return self._loop(peer)
        serve: dict[str, Callable[[], AbstractContextManager[Server]]] = {
            OURS: lambda: servers.ours(self._model, {"RERANKQ_SCORE_CACHE": "false"}),
            THEIRS: lambda: servers.theirs(self._model, self._folder, {}),
            FLOAT32: lambda: servers.theirs(self._model, self._folder),
            INFINITY: lambda: infinity(self._model, self._folder),
        }
        with serve[peer]() as server:
            for load in self._plan.cases:
                self._measurements.plain(server, load, side=peer)

    def _loop(self, peer: str) -> None:
        names = [name for name in self._plan.cases if name in LOOP_LOADS]
        loads = [LOOP_LOADS[name] for name in names]
        found = run_loop(LOOPS[peer], self._model, loads, self._plan.seconds, self._plan.seed, self._folder)
        for name, result in zip(names, found, strict=True):
            self._measurements.record(
                name, peer, result.p50_ms if LOADS[name].value == "p50" else result.pairs_per_second
            )

    def _tell(self, message: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {message}", file=sys.stderr, flush=True)


def table(measured: Measured, peers: Sequence[str]) -> str:
    """Return the means of the rounds as a Markdown table, with the largest spread of each row, and the failures."""
    units = [f"{name}, {case.unit}{' p50' if case.value == 'p50' else ''}" for name, case in LOADS.items()]
    lines = [f"| | {' | '.join(units)} | spread |", f"|---|{'---:|' * len(LOADS)}---:|"]
    for peer in peers:
        values = [measured.values_of(name, peer) for name in LOADS]
        cells = [f"{fmean(rounds):,.{0 if fmean(rounds) >= 100 else 1}f}" if rounds else "-" for rounds in values]
        lines.append(f"| {PEERS[peer]} | {' | '.join(cells)} | {max(map(spread, values)):.0%} |")
    return "\n".join(
        [*lines, *(["", "Failed:"] if measured.failures else []), *(f"- {it}" for it in measured.failures)]
    )


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    clear_settings(os.environ)
    described = machine.describe()
    plan = Plan(list(LOADS), options.rounds, options.seconds, backlog=0, seed=1)
    peers = options.only or list(PEERS)
    with tempfile.TemporaryDirectory(prefix="rerankq-bench-", ignore_cleanup_errors=True) as folder:
        run = Peers(plan, Path(folder))
        run.run(peers)
    print(table(run.measured, peers))
    if not options.only:
        path = RESULTS / "peers.json"
        content = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": described,
            "versions": machine.versions(),
            "plan": asdict(plan),
            "rounds": run.measured.values,
            "failures": run.measured.failures,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written: {path}", file=sys.stderr)
    return 1 if run.measured.failures else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a usage message when an option is invalid."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(PEERS), default=[], metavar="PEER", help=f"of {', '.join(PEERS)}; no file"
    )
    parser.add_argument("--rounds", type=positive, default=2, help="how often each is measured; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load; default: %(default)g")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
