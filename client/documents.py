"""Reads the documents of the command line from arguments, a file, or standard input."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from client.records import Document

FORMATS = ("lines", "jsonl", "json")


class UsageError(Exception):
    """The command line, or a file that it names, is invalid. The message is one sentence for the user."""


def gather(arguments: list[str], file: str | None, form: str | None) -> list[Document]:
    """The documents of the arguments and of the file; of standard input when both are absent.

    Raises UsageError, also when there are no documents.
    """
    documents: list[Document] = list(arguments)
    if file is None and not documents and not sys.stdin.isatty():
        file = "-"
    if file is not None:
        documents += _read(file, form)
    if not documents:
        raise UsageError("no documents: pass them as arguments, with --file, or on standard input")
    return documents


def _read(file: str, form: str | None) -> list[Document]:
    form = form or {".jsonl": "jsonl", ".json": "json"}.get(Path(file).suffix, "lines")
    try:
        if file == "-":
            return list(_parse(sys.stdin, form, "standard input"))
        with open(file, encoding="utf-8") as opened:
            return list(_parse(opened, form, file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error


def _parse(source: TextIO, form: str, name: str) -> Iterator[Document]:
    if form == "lines":
        yield from (line.strip() for line in source if line.strip())
    elif form == "jsonl":
        for number, line in enumerate(source, start=1):
            if line.strip():
                yield _document(_json(line, f"{name}, line {number}"), f"{name}, line {number}")
    else:
        documents = _json(source.read(), name)
        if not isinstance(documents, list):
            raise UsageError(f"{name}: expected a list of documents")
        for number, document in enumerate(documents):
            yield _document(document, f"{name}, document {number}")


def _json(text: str, where: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from error
    return value


def _document(value: object, where: str) -> Document:
    if isinstance(value, str | dict):
        return value
    raise UsageError(f"{where}: a document must be a string or an object")
