"""Parses the parameters of the headers Content-Type and Content-Disposition, and cleans file names.

Does not know uploads: api/http/multipart.py decides which part of a form is the file.
"""

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

DEFAULT_FILENAME = "upload"
"""The name of a file whose client sent none, or none that can be used."""
MAX_FILENAME_CHARACTERS = 255
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))', re.DOTALL)
"""A name, and a value in quotes or without. A semicolon inside quotes does not end the value."""
_ESCAPED = re.compile(r'\\(["\\])')
"""Other backslashes stand for themselves: some clients send the path of a Windows file without escaping it."""
_EXTENDED_CHARSETS = ("utf-8", "iso-8859-1")


def parse_parameters(header: str) -> tuple[str, dict[str, str]]:
    """Return the header's value in lower case, and its parameters with names in lower case.

    The first of several parameters with the same name counts. Malformed parameters are ignored.
    """
    parameters: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header):
        parameters.setdefault(name.lower(), _ESCAPED.sub(r"\1", quoted) or plain.strip())
    return header.partition(";")[0].strip().lower(), parameters


def read_filename(parameters: Mapping[str, str]) -> str | None:
    """Return the cleaned file name from the parameters of Content-Disposition, None when they name no file.

    `filename*` (RFC 8187) counts before `filename`, unless it is malformed.
    """
    name = _decode_extended(parameters.get("filename*", ""))
    if name is None:
        name = parameters.get("filename")
    if name is None:
        return DEFAULT_FILENAME if "filename*" in parameters else None
    return clean_filename(name)


def clean_filename(name: str) -> str:
    """Return the last part of a path of Unix or Windows, without control characters, cut to the longest length.

    Returns DEFAULT_FILENAME when nothing else remains.
    """
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(character for character in name if unicodedata.category(character) != "Cc").strip()
    return DEFAULT_FILENAME if name in ("", ".", "..") else name[:MAX_FILENAME_CHARACTERS]


def _decode_extended(value: str) -> str | None:
    """Decode `charset'language'percent-encoded`. Returns None when it is malformed."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    if not quote or charset.lower() not in _EXTENDED_CHARSETS:
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset)
    except UnicodeDecodeError:
        return None
