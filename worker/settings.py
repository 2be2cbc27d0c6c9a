"""The worker's settings."""

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from shared.settings import Settings


class WorkerSettings(Settings):
    """`model` is a name from the models file, its first one when empty; `engine` overrides the file's.

    `concurrency` is the number of shards that may be in the engine at once, each waiting in a thread; `reserved` of
    them, a quarter unless it is said, are for interactive work alone. `drain_seconds`: how long a worker that is told
    to stop goes on with what it has.
    """

    model: str | None = None
    engine: str | None = None
    concurrency: int = Field(default=64, ge=1, le=1024)
    reserved: int = Field(default=-1, ge=-1, validate_default=True)
    drain_seconds: float = Field(default=20.0, ge=0, le=86_400, allow_inf_nan=False)

    @field_validator("reserved")
    @classmethod
    def _leaves_something(cls, reserved: int, info: ValidationInfo) -> int:
        # A concurrency that is wrong itself is not here; its own mistake is the one to tell.
        concurrency = info.data.get("concurrency")
        if concurrency is not None and reserved == -1:
            return int(concurrency) // 4
        if concurrency is not None and reserved >= concurrency:
            raise PydanticCustomError(
                "reserved",
                "must be less than RERANKQ_CONCURRENCY, which is {concurrency}; it is {reserved}",
                {"concurrency": concurrency, "reserved": reserved},
            )
        return reserved
