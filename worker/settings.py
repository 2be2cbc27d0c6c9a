"""The worker's settings."""

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from shared.ledger.limits import BATCH_SHARE
from shared.settings import Settings


class WorkerSettings(Settings):
    """`model` is a name from the models file, by default its first one; `engine` overrides the file's engine.

    `concurrency` is the number of shards in the engine at once; `reserved` of them, by default a quarter, are reserved
    for interactive work. `batch_share`: the share of the pool's tokens that batch work gets at least.
    `drain_seconds`: how long a stopping worker continues its shards.
    """

    model: str | None = None
    engine: str | None = None
    concurrency: int = Field(default=64, ge=1, le=1024)
    reserved: int = Field(default=-1, ge=-1, validate_default=True)
    batch_share: float = Field(default=BATCH_SHARE, ge=0, lt=1, allow_inf_nan=False)
    drain_seconds: float = Field(default=20.0, ge=0, le=86_400, allow_inf_nan=False)

    @field_validator("reserved")
    @classmethod
    def _check_reserved(cls, reserved: int, info: ValidationInfo) -> int:
        # `info.data` lacks an invalid concurrency, which its own validator reports.
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
