"""What a person sees: steps with a spinner and their time on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def say(console: Console, text: str) -> None:
    """One line as it is: not broken at the terminal's width, so that it can be copied and searched."""
    console.print(text, highlight=False, soft_wrap=True)


class Steps:
    """Prints each step when it begins and when it is done; never a silent minute."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, doing: str) -> Iterator[list[str]]:
        """Show `doing` while the block runs; what the block appends to the list is printed after it."""
        done: list[str] = []
        started = time.monotonic()
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Progress(*columns, console=self._console, transient=True) as progress:
                progress.add_task(doing, total=None)
                yield done
        else:
            say(self._console, f"{doing} ...")
            yield done
        seconds = time.monotonic() - started
        text = done[0] if done else doing
        say(self._console, f"[green]✓[/green] {text} [dim]({seconds:.1f} s)[/dim]")
