"""`python -m client`: rank, jobs and batches from the command line."""

import argparse
import signal
import sys
from collections.abc import Callable
from types import FrameType

from rich.console import Console

from client import commands
from client.arguments import CommandParser, positive, seconds
from client.batches.arguments import add_batch_parser
from client.documents import FORMATS, UsageError
from client.errors import ConnectionFailed, RerankError, Unauthorized
from client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS, DEFAULT_URL, BadAddress

Action = Callable[[argparse.Namespace, Console], int]
EPILOG = """\
environment:
  RERANKQ_URL       the service's address, unless --url is given
  RERANKQ_API_KEY   the API key; there is no option for it, so that it does not appear in process lists

exit status: 0 on success, 1 on failure, 2 for invalid arguments, 130 when interrupted
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
        # The reader closed the pipe, as `head` does. Closing stderr hides Python's message about it at exit.
        sys.stderr.close()
        return 1


def make_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m client",
        description="Rank documents, follow jobs and run batches on a rerankq service.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    common, output = _common(), _output_options()

    rank = subparsers.add_parser(
        "rank", parents=[common, output, _query_arguments()], help="rank documents and print them, best first"
    )
    rank.set_defaults(action=commands.rank)

    job = subparsers.add_parser("job", help="submit, follow and delete jobs")
    actions = job.add_subparsers(required=True, metavar="ACTION")
    submit = actions.add_parser(
        "submit", parents=[common, output, _query_arguments()], help="submit a job; prints its id"
    )
    submit.set_defaults(action=commands.submit)
    for name, action, text in (
        ("show", commands.show, "print the status of a job"),
        ("wait", commands.wait, "wait until a job has ended; exit status 1 unless it succeeded"),
        ("results", commands.results, "print the ranking of a succeeded job"),
        ("cancel", commands.cancel, "cancel a job; a job that has ended is unchanged"),
        ("delete", commands.delete, "delete a job and its result"),
    ):
        one = actions.add_parser(name, parents=[common, output], help=text, description=text)
        one.add_argument("id", metavar="ID")
        one.set_defaults(action=action)

    add_batch_parser(subparsers, common, output, _request_fields())

    models = subparsers.add_parser("models", parents=[common, output], help="list the served models")
    models.set_defaults(action=commands.models)
    return parser


def _common() -> CommandParser:
    common = CommandParser(add_help=False)
    common.add_argument("--url", help=f"the service's address; default: RERANKQ_URL, or {DEFAULT_URL}")
    common.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="timeout of a request, retries included; default: %(default)g",
    )
    common.add_argument(
        "--retries",
        type=int,
        default=DEFAULT_RETRIES,
        metavar="N",
        help="retries while the service is busy or unreachable; default: %(default)s",
    )
    return common


def _output_options() -> CommandParser:
    output = CommandParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print the service's JSON")
    return output


def _request_fields() -> CommandParser:
    """The optional fields of a request."""
    fields = CommandParser(add_help=False)
    group = fields.add_argument_group("request options")
    group.add_argument("--model", help="model name or alias; default: the service's first model")
    group.add_argument("--top-n", type=positive, metavar="N", help="return only the N best documents")
    group.add_argument("--instruction", metavar="TEXT", help="task instruction, for models with a score template")
    group.add_argument("--max-tokens-per-doc", type=positive, metavar="N", help="truncate documents to N tokens")
    group.add_argument(
        "--max-chunks-per-doc", type=positive, metavar="N", help="score up to N windows of a long document"
    )
    group.add_argument(
        "--truncate",
        type=str.upper,
        choices=("END", "START", "NONE"),
        help="what is cut off a text that is too long: its end (the default) or its start; NONE is an error",
    )
    group.add_argument("--priority", type=int, metavar="0..999", help="0 is the most urgent and the default")
    group.add_argument("--raw-scores", action="store_true", default=None, help="return the model's own scores")
    return fields


def _query_arguments() -> CommandParser:
    arguments = CommandParser(add_help=False, parents=[_request_fields()])
    arguments.add_argument("query", metavar="QUERY")
    arguments.add_argument(
        "documents",
        nargs="*",
        metavar="DOCUMENT",
        help="a document; default: the documents of --file, or of standard input",
    )
    arguments.add_argument("--file", metavar="PATH", help="read documents from a file; - for standard input")
    arguments.add_argument(
        "--format",
        choices=FORMATS,
        help="format of the file; default: by its suffix (.json, .jsonl), otherwise one document per line",
    )
    arguments.add_argument(
        "--webhook", metavar="URL", help="address that the service calls when the job has ended, however it ends"
    )
    arguments.add_argument("--key", metavar="KEY", help="idempotency key: requests with the same key share one job")
    return arguments


def _hint(error: RerankError) -> str:
    if isinstance(error, Unauthorized):
        return "; set RERANKQ_API_KEY"
    if isinstance(error, ConnectionFailed):
        return "; check that the service is running and that --url (or RERANKQ_URL) is its address"
    return ""


def _fail(errors: Console, message: str, status: int) -> int:
    errors.print(f"client: {message}", style="red", markup=False, highlight=False)
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
