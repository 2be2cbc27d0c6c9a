"""The parser of commands, and types of their arguments. A message of ArgumentTypeError becomes the command's error."""

import argparse
from collections.abc import Sequence
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """The parser of a command. Its first argument may be the name of an action, which has a parser of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._actions_by_name: dict[str, CommandParser] = {}

    def add_action(self, name: str, **options: Any) -> "CommandParser":
        """Add the parser of an action."""
        parser = CommandParser(prog=f"{self.prog} {name}", **options)
        self._actions_by_name[name] = parser
        return parser

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Let the action's parser parse the rest."""
        if args and (parser := self._actions_by_name.get(args[0])) is not None:
            return parser.parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)


def positive(text: str) -> int:
    """A number of 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("expected a number of 1 or more")
    return number


def seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError("expected a number of seconds above 0")
    return number


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE, as a tuple."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError("expected KEY=VALUE")
    return key, value
