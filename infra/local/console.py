"""Terminal output: steps with a spinner and their duration; plain lines when output is not a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def say(console: Console, text: str) -> None:
    """Print a line without wrapping, so that it can be copied and searched."""
    console.print(text, highlight=False, soft_wrap=True)


class Steps:
    """Prints each step when it begins and when it completes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, label: str) -> Iterator[list[str]]:
        """Show `label` while the block runs. Text that the block appends to the list replaces it at the end."""
        done: list[str] = []
        started = time.monotonic()
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Progress(*columns, console=self._console, transient=True) as progress:
                progress.add_task(label, total=None)
                yield done
        else:
            say(self._console, f"{label} ...")
            yield done
        seconds = time.monotonic() - started
        text = done[0] if done else label
        say(self._console, f"[green]✓[/green] {text} [dim]({seconds:.1f} s)[/dim]")
