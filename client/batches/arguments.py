"""The command line of `batch`: `batch IN.jsonl OUT.jsonl`, and actions on batches that run on the service."""

import argparse

from client.arguments import CommandParser, pair, positive
from client.batches import commands

DESCRIPTION = """\
Rank a file of requests into a file of rankings. After an interruption or failures, run the same command again:
rankings are kept, and what has begun is continued.

IN.jsonl has one request per line, {"query", "documents", "custom_id"?, ...}, or a line of OpenAI's Batch format with
the request as its body. OUT.jsonl gets one row per line, {"line", "custom_id", "key", "ranking" or "error"}.

actions, instead of IN.jsonl (a file of such a name is ./status):
  batch status ID              print the status of a batch on the service
  batch resume ID OUT.jsonl    follow a batch on the service, and download its rankings
  batch cancel ID              cancel a batch; what is done is kept
  batch list                   list the newest batches
"""
EPILOG = """\
modes:
  client   This process submits each line as a job, and must run until the end. Rows are in order of completion.
  server   The file is uploaded, and the service ranks it by itself. Rows are in the order of the input, and are
           written when the batch has ended. Every custom_id must be unique.
  auto     server for inputs of more than 1,000 lines or 8 MiB, and when an option of the server mode is given;
           client otherwise, and for services without batches.

state file:
  In server mode OUT.jsonl.batch holds the id of the batch until OUT.jsonl is complete. The same command continues from
  it: after Ctrl-C, after a crash, on a later day. Delete it to start again. While the batch is followed, the service
  may be unreachable for as long as --timeout.

  Lines that OUT.jsonl ranks already are not uploaded. After the download the input and the result files are deleted
  from the service, unless --keep-files is given.

exit status: 0 when every line is ranked, 1 when a line or the batch failed, 2 for invalid arguments, 130 when
interrupted
"""


def add_batch_parser(
    subparsers: "argparse._SubParsersAction[CommandParser]",
    common: CommandParser,
    output: CommandParser,
    request_fields: CommandParser,
) -> None:
    """Add `batch`. The other parsers have the options that commands share."""
    batch = subparsers.add_parser(
        "batch",
        parents=[common, request_fields],
        help="rank a file of requests into a file of rankings; follow and cancel batches on the service",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    batch.add_argument("source", metavar="IN.jsonl", help="the requests")
    batch.add_argument("target", metavar="OUT.jsonl", help="the rankings and errors")
    batch.add_argument("--mode", choices=("auto", "client", "server"), default="auto", help="default: %(default)s")
    group = batch.add_argument_group("client mode")
    group.add_argument(
        "--concurrency", type=positive, default=8, metavar="N", help="concurrent requests; default: %(default)s"
    )
    group = batch.add_argument_group("server mode")
    group.add_argument("--detach", action="store_true", help="print the id of the batch, and leave it to the service")
    group.add_argument(
        "--completion-window",
        metavar="TIME",
        help="cancel what is not ranked by then, for example 30m or 7d; default: 24h",
    )
    group.add_argument(
        "--metadata", type=pair, action="append", metavar="KEY=VALUE", help="describes the batch; can be repeated"
    )
    _add_keep_files(group)
    batch.set_defaults(action=commands.batch)
    _add_actions(batch, common, output, request_fields)


def _add_actions(
    batch: CommandParser,
    common: CommandParser,
    output: CommandParser,
    request_fields: CommandParser,
) -> None:
    for name, action, text in (
        ("status", commands.status, "print the status of a batch"),
        ("cancel", commands.cancel, "cancel a batch: what is done is kept, and a batch that has ended is unchanged"),
    ):
        one = batch.add_action(name, parents=[common, output], description=text)
        one.add_argument("id", metavar="ID")
        one.set_defaults(action=action)

    resume = batch.add_action(
        "resume",
        parents=[common, request_fields],
        description="Follow a batch on the service, and download its rankings. The batch continues after Ctrl-C. "
        "Without OUT.jsonl.batch, give the request options with which the batch was created: they are a part of each "
        "row's key, by which a later run of `batch IN.jsonl OUT.jsonl` finds what is ranked.",
    )
    resume.add_argument("id", metavar="ID")
    resume.add_argument("target", metavar="OUT.jsonl", help="the rankings and errors")
    _add_keep_files(resume)
    resume.set_defaults(action=commands.resume)

    listing = batch.add_action("list", parents=[common, output], description="List the newest batches.")
    listing.add_argument("--limit", type=positive, default=20, metavar="1..100", help="default: %(default)s")
    listing.set_defaults(action=commands.list_batches)


def _add_keep_files(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument("--keep-files", action="store_true", help="leave the input and the result files on the service")
