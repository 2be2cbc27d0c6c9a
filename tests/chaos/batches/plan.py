"""The fault "batch": runs a batch while its processes are killed, and checks that its output is complete and right."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from shared.ledger.batch_record import BatchStatus
from tests.chaos.batches.checks import Row, check_batch, check_objects, check_rows, check_sweep, compare_rows
from tests.chaos.batches.client import BatchClient, BatchClientError
from tests.chaos.batches.runners import find_orphans
from tests.chaos.batches.steps import Step, inject
from tests.chaos.cases import Case, make_line
from tests.chaos.fault_context import FaultContext
from tests.chaos.faults import Fault

RECOVERY_SECONDS = 30.0
"""How long after a fault the batch must go on: the lease of a killed runner, a new process, and a segment."""
_PROGRESS_SECONDS = 60.0
_END_SECONDS = 240.0
_GAP_SECONDS = (0.2, 1.0)
_PAUSE_SECONDS = (0.5, 2.0)
_INTERRUPTING = (Step.API, Step.RUNNER, Step.REDIS)
"""The faults during which a segment may be written that its batch never refers to."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch, and the faults while it runs. The faults of a round follow each other at once; see `run_batch`.

    `undisturbed`: run the same file before, without faults, and compare all that the rows contain.
    """

    lines: int
    documents: int
    rounds: Sequence[Sequence[Step]]
    undisturbed: bool = False

    @property
    def fault(self) -> Fault:
        name = f"batch: {self.lines * self.documents:,} pairs"
        return Fault(name, self._inject, RECOVERY_SECONDS)

    @property
    def count(self) -> int:
        """The number of faults."""
        return sum(map(len, self.rounds))

    def _inject(self, context: FaultContext, _: int) -> None:
        try:
            run_batch(context, self)
        except BatchClientError as error:
            context.row.lost.append(str(error))


def run_batch(context: FaultContext, plan: BatchPlan) -> None:
    """Run the batch. After each round of faults wait until its cursor moves, then check all that it leaves.

    Raises BatchClientError.
    """
    client = BatchClient(context.cluster.urls, context.sleep)
    seed = context.rng.randrange(1 << 32)
    cases = [make_line(seed, number, plan.documents) for number in range(1, plan.lines + 1)]
    file_id = client.upload(cases)
    undisturbed = None
    if plan.undisturbed:
        undisturbed = BatchOfLines(context, client, client.create(file_id), cases)
        undisturbed.wait_for_end()
    batch = BatchOfLines(context, client, client.create(file_id), cases)
    context.row.jobs += plan.lines
    batch.run_rounds(plan.rounds)
    if not batch.wait_for_end():
        return
    batch.check(undisturbed)
    for file in (file_id, batch.output_id, undisturbed.output_id if undisturbed else None):
        if file is not None:
            client.delete(file)
    context.row.wrong += check_sweep(context.cluster.payloads, context.cluster.redis_port)


class BatchOfLines:
    """One batch that runs in the cluster."""

    def __init__(self, context: FaultContext, client: BatchClient, batch_id: str, cases: Sequence[Case]) -> None:
        self._context = context
        self._client = client
        self._id = batch_id
        self._cases = cases
        self._started = time.monotonic()
        self._worst: dict[str, float] = {}
        self._interrupted = 0
        self.seconds = 0.0
        self.output_id: str | None = None

    def run_rounds(self, rounds: Sequence[Sequence[Step]]) -> None:
        """Inject the faults, the first of them when the first results are stored. Stops when the batch has ended."""
        context = self._context
        context.wait_until(lambda: self._cursor() > 0, _PROGRESS_SECONDS)
        for steps in rounds:
            context.sleep(context.rng.uniform(*_PAUSE_SECONDS))
            if self._has_ended():
                context.row.wrong.append("the batch ended before all faults were injected")
                return
            for step in steps:
                context.sleep(context.rng.uniform(*_GAP_SECONDS))
                injected_at = inject(context, self._id, step)
                self._interrupted += step in _INTERRUPTING
            self._measure_recovery(" + ".join(steps), injected_at)

    def _measure_recovery(self, name: str, since: float) -> None:
        """Measure how long it takes from the round's last fault until results are stored again."""
        context, before = self._context, self._cursor()
        if not context.wait_until(lambda: self._cursor() > before or self._has_ended(), _PROGRESS_SECONDS):
            context.row.lost.append(f"the batch made no progress for {_PROGRESS_SECONDS:g} s after {name}")
            return
        seconds = time.monotonic() - since
        context.row.record_recovery(seconds)
        self._worst[name] = max(self._worst.get(name, 0.0), seconds)

    def wait_for_end(self) -> bool:
        """Whether the batch ends in time; otherwise it is reported as lost."""
        if not self._context.wait_until(self._has_ended, _END_SECONDS):
            self._context.row.lost.append(f"the batch has not ended within {_END_SECONDS:g} s of the last fault")
            return False
        self.seconds = time.monotonic() - self._started
        self.output_id = self._client.read(self._id)["output_file_id"]
        return True

    def rows(self) -> list[Row]:
        """The rows of the output file."""
        return self._client.rows(self.output_id) if self.output_id else []

    def check(self, undisturbed: "BatchOfLines | None") -> None:
        """Report what is wrong with the batch, and with what it leaves."""
        context, view = self._context, self._context.cluster.view
        row = context.row
        rows = self.rows()
        check_rows(rows, self._cases, row)
        row.wrong += check_batch(self._client.read(self._id), len(self._cases))
        if undisturbed is not None:
            row.wrong += compare_rows(rows, undisturbed.rows())
        left = context.read(view.leftovers_of_batches)
        row.wrong += [f"not empty after the batch: {name}: {count}" for name, count in left.items()]
        segments = context.read(partial(view.segments, self._id))
        row.wrong += check_objects(context.cluster.payloads, self._id, segments, self._interrupted)
        row.wrong += [f"the runner {pid} has outlived its API process" for pid in find_orphans(context.cluster)]
        row.notes.append(self._describe(undisturbed, len(segments)))

    def _describe(self, undisturbed: "BatchOfLines | None", segments: int) -> str:
        before = "" if undisturbed is None else f"{undisturbed.seconds:.0f} s undisturbed, "
        keys = len(self._context.read(self._context.cluster.view.line_job_keys))
        worst = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._worst.items())
        return (
            f"{before}{self.seconds:.0f} s with faults, {segments} segments, {keys} keys of line jobs still to expire; "
            f"worst recovery: {worst}"
        )

    def _cursor(self) -> int:
        return int(self._context.read(lambda: self._context.cluster.view.batch(self._id)).get("cursor_line", 0))

    def _has_ended(self) -> bool:
        fields = self._context.read(lambda: self._context.cluster.view.batch(self._id))
        return BatchStatus(fields["status"]).final


# The later faults happen while the lease of the killed runner expires, and the last one when another runner starts.
SHORT = BatchPlan(200, 10, [[Step.WORKER, Step.RUNNER, Step.REDIS, Step.NO_WORKERS, Step.API]])
LONG = BatchPlan(
    1000,
    100,
    [
        *([step] for _ in range(3) for step in (Step.WORKER, Step.API, Step.RUNNER, Step.REDIS)),
        [Step.NO_WORKERS],
        [Step.WORKER, Step.API, Step.RUNNER, Step.REDIS],
    ],
    undisturbed=True,
)
