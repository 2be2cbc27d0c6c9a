"""Server mode on the terminal: runs the steps of a batch, and prints its progress and the command that continues it."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from client.batch_records import BatchJob
from client.batches.merge import Totals
from client.batches.server_mode import ServerBatch
from client.documents import UsageError
from client.errors import BatchNotFound, StoredFileNotFound
from client.output import bar, batch_error

_ENDED = {"failed": "failed", "expired": "expired", "cancelled": "was cancelled"}


def run_on_server(arguments: argparse.Namespace, errors: Console, work: ServerBatch) -> int:
    """Create the batch unless it exists; then leave it with --detach, or follow it to its end."""
    with _explained(errors, work):
        if work.state.batch_id:
            errors.print(f"continuing with the batch {work.state.batch_id}", highlight=False)
        elif (ranked := _start(errors, work)) is not None:
            return _summarize(errors, work, ranked)
        if arguments.detach:
            # Only the id, so that $(...) can capture it.
            print(work.state.batch_id)
            return 0
        return _finish(arguments, errors, work)


def continue_batch(arguments: argparse.Namespace, errors: Console, work: ServerBatch) -> int:
    """Follow a batch that exists to its end."""
    with _explained(errors, work):
        return _finish(arguments, errors, work)


def _start(errors: Console, work: ServerBatch) -> Totals | None:
    """Upload the input and create the batch. Returns the totals when there was nothing left to rank."""
    if work.state.file_id:
        # An earlier run was interrupted between the two steps.
        try:
            work.create()
            return None
        except StoredFileNotFound:
            errors.print("the uploaded file has expired; uploading it again", highlight=False)
    with bar(errors, "reading", of_bytes=True) as progress:
        task = work.examine(lambda read: progress.show(read, work.source_bytes))
    if task.before:
        errors.print(f"{task.before} of {task.total} were ranked by an earlier run", highlight=False)
    if not task.left:
        return work.write_locally()
    with bar(errors, "uploading", of_bytes=True) as progress:
        work.upload(task, lambda sent: progress.show(sent, task.upload_bytes))
    work.create()
    errors.print(f"the batch {work.state.batch_id} has {task.left} requests", highlight=False)
    return None


def _finish(arguments: argparse.Namespace, errors: Console, work: ServerBatch) -> int:
    with bar(errors, "ranking") as progress:

        def show_progress(batch: BatchJob) -> None:
            progress.show(batch.pairs_done, batch.pairs_total or None, _note(batch))

        batch = work.follow(show_progress)
    with bar(errors, "downloading"):
        totals = work.download(batch)
    work.clean_up(batch, keep_files=arguments.keep_files)
    for error in batch.errors:
        errors.print(batch_error(error), markup=False, highlight=False)
    if batch.status != "completed":
        again = "" if totals is None else "; the same command ranks what is left"
        errors.print(f"the batch {batch.id} {_ENDED[batch.status]}{again}", highlight=False)
    if totals is None:
        return 1
    return max(_summarize(errors, work, totals), int(batch.status != "completed"))


def _summarize(errors: Console, work: ServerBatch, totals: Totals) -> int:
    ranked = totals.total - totals.failed
    errors.print(f"{ranked} of {totals.total} ranked, {totals.failed} failed: {work.target}", highlight=False)
    return 1 if totals.failed else 0


@contextmanager
def _explained(errors: Console, work: ServerBatch) -> Iterator[None]:
    """When an exception other than UsageError ends the block, print whether the batch continues on the service."""
    try:
        yield
    except UsageError:
        raise
    except BaseException as error:
        _explain(errors, work, error)
        raise
    finally:
        work.close()


def _explain(errors: Console, work: ServerBatch, error: BaseException) -> None:
    if work.ended:
        return
    batch_id = work.state.batch_id
    if not batch_id:
        errors.print("the batch does not exist yet; run the same command to continue", highlight=False)
    elif isinstance(error, BatchNotFound | StoredFileNotFound):
        errors.print(f"to start again, delete {work.state_file.path} and run the same command", highlight=False)
    else:
        errors.print(
            f"the batch {batch_id} continues on the service\n"
            f"to follow it, run the same command; to stop it: python -m client batch cancel {batch_id}",
            highlight=False,
        )


def _note(batch: BatchJob) -> str:
    parts = [batch.status] if batch.status != "in_progress" else []
    if batch.pairs_per_second:
        parts.append(f"{batch.pairs_per_second:,.0f} pairs/s")
    if batch.estimated_finish is not None:
        seconds = max(0, round(batch.estimated_finish - time.time()))
        parts.append(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left")
    if batch.requests_failed:
        parts.append(f"{batch.requests_failed} failed")
    return ", ".join(parts)
