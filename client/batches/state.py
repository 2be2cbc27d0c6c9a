"""What an unfinished batch in server mode keeps beside its output file, in `OUT.jsonl.batch`.

The file lets the same command continue: it names the uploaded file and the batch. It holds no API key. It is replaced
as a whole, so that a crash leaves the old or the new state.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from client.documents import UsageError

SUFFIX = ".batch"


@dataclass(slots=True)
class BatchState:
    """`source` and `digest` are the input's path and SHA-256; both are empty when only the batch's id is known.

    `file_id` is set when the input is uploaded, `batch_id` when the batch is created.
    """

    url: str
    source: str = ""
    digest: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    completion_window: str = "24h"
    metadata: dict[str, str] = field(default_factory=dict)
    file_id: str = ""
    batch_id: str = ""


class StateFile:
    """The state of one output file."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + SUFFIX)

    def load(self) -> BatchState | None:
        """The stored state; None without one. Raises UsageError when it cannot be read."""
        try:
            return BatchState(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"cannot read {self.path}: {error}; delete it to start again") from error

    def save(self, state: BatchState) -> None:
        """Store the state. Raises UsageError."""
        partial = self.path.with_name(f"{self.path.name}.part")
        try:
            with partial.open("w", encoding="utf-8") as opened:
                json.dump(asdict(state), opened, indent=2)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(partial, self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UsageError(f"cannot write {self.path}: {error}") from error

    def delete(self) -> None:
        """Delete the state, if any."""
        self.path.unlink(missing_ok=True)
