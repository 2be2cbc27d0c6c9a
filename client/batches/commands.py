"""The commands of `python -m client batch`. Each returns the exit status."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, cast

from rich.console import Console

from client.asynchronous import AsyncClient
from client.batches.client_mode import BatchProgress, ClientBatch
from client.batches.input_lines import InputFile
from client.batches.server_commands import continue_batch, run_on_server
from client.batches.server_mode import ServerBatch
from client.batches.state import BatchState, StateFile
from client.blocking import Client
from client.commands import client_options, open_client, print_result, request_options
from client.documents import UsageError
from client.errors import NotFound
from client.output import bar, batch_table, batches_table
from client.records import Options
from client.settings import ClientSettings


def batch(arguments: argparse.Namespace, errors: Console) -> int:
    source, target = InputFile(Path(arguments.source), request_options(arguments)), Path(arguments.target)
    state = StateFile(target).load()
    with open_client(arguments) as client:
        if not _uses_server(arguments, client, source, state):
            return _run_in_client(arguments, errors, source, target)
        state = _state(arguments, source, state)
        return run_on_server(arguments, errors, ServerBatch(client, source, target, state))


def status(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        found = client.batch(arguments.id)
    print_result(arguments, found.raw, lambda: batch_table(found))
    return 0


def cancel(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        found = client.cancel_batch(arguments.id)
    print_result(arguments, found.raw, lambda: batch_table(found))
    return 0


def list_batches(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        found = client.batches(arguments.limit)
    print_result(arguments, [each.raw for each in found], lambda: batches_table(found))
    return 0


def resume(arguments: argparse.Namespace, errors: Console) -> int:
    target = Path(arguments.target)
    state_file = StateFile(target)
    state = state_file.load()
    with open_client(arguments) as client:
        if state is not None:
            if state.batch_id != arguments.id:
                raise UsageError(f"{state_file.path} belongs to another batch; name another output file")
            _require_address(arguments, state, state_file)
            source = InputFile(Path(state.source), cast(Options, state.options))
            return continue_batch(arguments, errors, ServerBatch(client, source, target, state))
        if target.exists():
            raise UsageError(f"{target} exists; name another file")
        return _resume_unknown(arguments, errors, client, target)


def _resume_unknown(arguments: argparse.Namespace, errors: Console, client: Client, target: Path) -> int:
    """Continue a batch that was created elsewhere: its input is on the service, and is needed for the rows' keys."""
    found = client.batch(arguments.id)
    try:
        copy = NamedTemporaryFile(dir=target.parent)  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error}") from error
    with copy:
        with bar(errors, "downloading"):
            client.download_file(found.input_file_id, cast(BinaryIO, copy))
        copy.flush()
        source = InputFile(Path(copy.name), request_options(arguments))
        state = BatchState(_address(arguments), batch_id=found.id)
        return continue_batch(arguments, errors, ServerBatch(client, source, target, state))


def _uses_server(arguments: argparse.Namespace, client: Client, source: InputFile, state: BatchState | None) -> bool:
    """Whether the input is ranked in server mode. Raises UsageError, and NotFound for a service without batches."""
    given = {
        "--detach": arguments.detach,
        "--completion-window": arguments.completion_window,
        "--metadata": arguments.metadata,
        "--keep-files": arguments.keep_files,
    }
    option = next((name for name, value in given.items() if value), None)
    if arguments.mode == "client":
        if option is not None:
            raise UsageError(f"{option} needs the server mode")
        if state is not None:
            path = StateFile(Path(arguments.target)).path
            raise UsageError(f"{path} continues a batch in server mode; delete it to start again in client mode")
        return False
    wanted = arguments.mode == "server" or option is not None or state is not None
    if not wanted and not source.is_large():
        return False
    if client.has_batches():
        return True
    if wanted:
        raise NotFound("this service has no batches; use --mode client")
    return False


def _state(arguments: argparse.Namespace, source: InputFile, state: BatchState | None) -> BatchState:
    """The state of this command; `state` is that of an earlier run. Raises UsageError when that was another command."""
    digest, options = source.digest(), dict(request_options(arguments))
    if state is None:
        return BatchState(
            url=_address(arguments),
            source=str(source.path.absolute()),
            digest=digest,
            options=options,
            completion_window=arguments.completion_window or "24h",
            metadata=dict(arguments.metadata or ()),
        )
    state_file = StateFile(Path(arguments.target))
    _require_address(arguments, state, state_file)
    if (state.digest, state.options) != (digest, options):
        raise UsageError(
            f"{state_file.path} continues a batch of another input or with other request options; run the command with "
            "these, name another output file, or delete it to start again"
        )
    return state


def _require_address(arguments: argparse.Namespace, state: BatchState, state_file: StateFile) -> None:
    if state.url != _address(arguments):
        raise UsageError(f"{state_file.path} continues a batch of {state.url}; add --url {state.url}")


def _address(arguments: argparse.Namespace) -> str:
    return ClientSettings.of(arguments.url, None, arguments.timeout, arguments.retries).url


def _run_in_client(arguments: argparse.Namespace, errors: Console, source: InputFile, target: Path) -> int:
    work = ClientBatch(source, target)
    lines = work.progress
    if lines.before:
        errors.print(f"{lines.before} of {lines.total} were ranked by an earlier run", highlight=False)
    try:
        with bar(errors, "ranking") as progress:

            def show_progress(lines: BatchProgress) -> None:
                note = f"{lines.failed} failed" if lines.failed else ""
                progress.show(lines.before + lines.done, lines.total, note)

            asyncio.run(_run(arguments, work, show_progress))
    except BaseException:
        left = lines.total - lines.before - lines.done
        errors.print(f"{left} of {lines.total} are left; run the same command to continue", highlight=False)
        raise
    done = lines.before + lines.done - lines.failed
    errors.print(f"{done} of {lines.total} ranked, {lines.failed} failed: {target}", highlight=False)
    return 1 if lines.failed else 0


async def _run(arguments: argparse.Namespace, work: ClientBatch, on_progress: Callable[[BatchProgress], None]) -> None:
    async with AsyncClient(arguments.url, **client_options(arguments)) as client:
        await work.run(
            client, concurrency=arguments.concurrency, timeout_seconds=arguments.timeout, on_progress=on_progress
        )
