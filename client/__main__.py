"""`python -m client`: rank, jobs and batches from the command line."""

import argparse
import signal
import sys
from collections.abc import Callable
from types import FrameType

from rich.console import Console

from client import commands
from client.documents import FORMATS, UsageError
from client.errors import ConnectionFailed, RerankError, Unauthorized
from client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS, DEFAULT_URL, BadAddress

Action = Callable[[argparse.Namespace, Console], int]
EPILOG = """\
environment:
  RERANKQ_URL       the service's address, where --url does not name it
  RERANKQ_API_KEY   the key to call with; it is read from here alone, so that it shows in no list of processes

exit status: 0, or 1 when something failed, 2 when the command line is wrong, 130 when interrupted
"""


def main(arguments: list[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    errors = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        action: Action = options.action
        return action(options, errors)
    except (UsageError, BadAddress) as error:
        return _fail(errors, str(error), 2)
    except RerankError as error:
        return _fail(errors, f"{error.message}{_hint(error)}", 1)
    except KeyboardInterrupt:
        return _fail(errors, "interrupted", 130)
    except BrokenPipeError:
        # Whoever read it has enough.
        sys.stderr.close()
        return 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description="Rank documents, follow jobs and work off batches on a rerankq service.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found = parser.add_subparsers(required=True, metavar="COMMAND")
    common, printed = _common(), _printed()

    rank = found.add_parser(
        "rank", parents=[common, printed, _question()], help="rank documents and print them, best first"
    )
    rank.set_defaults(action=commands.rank)

    job = found.add_parser("job", help="submit a job and come back for it")
    actions = job.add_subparsers(required=True, metavar="ACTION")
    submit = actions.add_parser(
        "submit", parents=[common, printed, _question()], help="have documents ranked; prints the job's id"
    )
    submit.set_defaults(action=commands.submit)
    for name, action, text in (
        ("show", commands.show, "print how a job stands"),
        ("wait", commands.wait, "wait until a job has ended; status 1 when it did not succeed"),
        ("results", commands.results, "print the ranking of a job that succeeded"),
        ("cancel", commands.cancel, "cancel a job; one that has ended stays as it is"),
        ("delete", commands.delete, "remove a job and its result"),
    ):
        one = actions.add_parser(name, parents=[common, printed], help=text, description=text)
        one.add_argument("id", metavar="ID")
        one.set_defaults(action=action)

    batch = found.add_parser(
        "batch",
        parents=[common, _fields()],
        help="rank a file of requests into a file of rankings",
        description="Rank a file of requests into a file of rankings. Interrupted, or with failures in it, the same "
        "command goes on where it was: what is ranked stays, and jobs that were begun are found again.",
    )
    batch.add_argument("source", metavar="IN.jsonl", help='one {"query", "documents", "custom_id"?, ...} a line')
    batch.add_argument("target", metavar="OUT.jsonl", help="one ranking or error a line, as they are done")
    batch.add_argument("--concurrency", type=_positive, default=8, metavar="N", help="at a time; default: %(default)s")
    batch.set_defaults(action=commands.batch)

    models = found.add_parser("models", parents=[common, printed], help="list what is served")
    models.set_defaults(action=commands.models)
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help=f"the service's address; default: RERANKQ_URL, or {DEFAULT_URL}")
    common.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="give up on a request after so long; default: %(default)g",
    )
    common.add_argument(
        "--retries",
        type=int,
        default=DEFAULT_RETRIES,
        metavar="N",
        help="how often to try again while the service is busy or away; default: %(default)s",
    )
    return common


def _printed() -> argparse.ArgumentParser:
    printed = argparse.ArgumentParser(add_help=False)
    printed.add_argument("--json", action="store_true", help="print what the service answered")
    return printed


def _fields() -> argparse.ArgumentParser:
    """The optional fields of a request."""
    fields = argparse.ArgumentParser(add_help=False)
    group = fields.add_argument_group("the request")
    group.add_argument("--model", help="a name or alias; default: the service's first")
    group.add_argument("--top-n", type=_positive, metavar="N", help="only so many of the best")
    group.add_argument("--instruction", metavar="TEXT", help="for models with a score template")
    group.add_argument("--max-tokens-per-doc", type=_positive, metavar="N", help="cut longer documents")
    group.add_argument("--max-chunks-per-doc", type=_positive, metavar="N", help="score so many windows of long ones")
    group.add_argument("--priority", type=int, metavar="0..999", help="0 is the most urgent, and the default")
    group.add_argument("--raw-scores", action="store_true", default=None, help="the model's own scores")
    return fields


def _question() -> argparse.ArgumentParser:
    question = argparse.ArgumentParser(add_help=False, parents=[_fields()])
    question.add_argument("query", metavar="QUERY")
    question.add_argument(
        "documents", nargs="*", metavar="DOCUMENT", help="without any: from --file, or standard input"
    )
    question.add_argument("--file", metavar="PATH", help="documents from a file; -: from standard input")
    question.add_argument(
        "--format",
        choices=FORMATS,
        help="of the file; default: by its name (.json, .jsonl), otherwise one document a line",
    )
    question.add_argument("--key", metavar="KEY", help="an idempotency key: the same key is the same job")
    return question


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("a number of 1 or more is expected")
    return number


def _seconds(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds over 0 is expected")
    return number


def _hint(error: RerankError) -> str:
    if isinstance(error, Unauthorized):
        return "; put a key into RERANKQ_API_KEY"
    if isinstance(error, ConnectionFailed):
        return "; is the service running, and is --url (or RERANKQ_URL) its address?"
    return ""


def _fail(errors: Console, message: str, status: int) -> int:
    errors.print(f"client: {message}", style="red", markup=False, highlight=False)
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
