"""The worker's settings."""

from pydantic import Field

from shared.settings import Settings


class WorkerSettings(Settings):
    """`model` is a name from the models file, its first one when empty; `engine` overrides the file's.

    `concurrency` is the number of shards that may be in the engine at once, each waiting in a thread.
    """

    model: str | None = None
    engine: str | None = None
    concurrency: int = Field(default=64, ge=1, le=1024)
