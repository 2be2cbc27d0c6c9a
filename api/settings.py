"""The API's settings; each is read from RERANKQ_NAME."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from api.dialects.registry import FAMILIES
from api.payloads.factory import default_location
from shared.settings import PREFIX, Seconds, Settings


class ApiSettings(Settings):
    """The API's address, its limits and its root dialect.

    `processes`: how many processes serve the address; each uses one core at most. `allow_anonymous`: listen beyond
    loopback without any API key. `keys_file`: a file with API keys beside those in Redis.
    `max_body_bytes`: the largest request body. `max_documents`: the most documents in one request.
    `wait_seconds`: the longest wait for a result. After it the client gets 504, and the job continues.
    `job_deadline_seconds`: a job that no worker has started by then expires.
    `result_seconds`: the time that a finished job can be read.
    `max_windows`: the most windows of long documents in one request.
    `shard_tokens`: the size of a shard in estimated tokens; a few seconds of an engine's time.
    `batch_window`: the most shards of one batch job in the queue at once.
    `max_pending_tokens` and `max_pending_jobs`: the most estimated tokens and jobs that may be pending in one model's
    pool. `max_connections` and `max_waiting`: the most connections to the address, and the most callers that may wait
    there; each process has an equal part. Beyond these limits requests get 503.
    `payloads`: where files are stored: a folder, `s3://BUCKET/PREFIX`, or `redis`; by default a folder in the user's
    state directory. `max_file_bytes`: the largest file. `max_batch_lines`: the most requests in one batch.
    `file_seconds`: the lifetime of a file, and of a batch's results after its end.
    `batch_runner`: `auto` starts a process that runs batches while there are any; with `separate`, `python -m api
    batches` runs them elsewhere.
    `root_dialect`: the name of the dialect family that is served without a prefix.
    `allowed_origins`: the origins whose web pages may call the API, separated by commas; `*` allows all.
    `webhook_networks`: networks (`10.0.0.0/8,fd00::/8`) that webhooks may reach although they are not public, also by
    plain HTTP.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    allow_anonymous: bool = False
    keys_file: Path | None = None
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    max_documents: Annotated[int, Field(ge=1)] = 10_000
    max_windows: Annotated[int, Field(ge=1)] = 50_000
    wait_seconds: Seconds = 60.0
    job_deadline_seconds: Seconds = 86_400.0
    result_seconds: Seconds = 3600.0
    shard_tokens: Annotated[int, Field(ge=1)] = 16_384
    batch_window: Annotated[int, Field(ge=1)] = 32
    max_pending_tokens: Annotated[int, Field(ge=1)] = 50_000_000
    max_pending_jobs: Annotated[int, Field(ge=1)] = 100_000
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    max_waiting: Annotated[int, Field(ge=1)] = 5000
    payloads: str = Field(default_factory=default_location)
    max_file_bytes: Annotated[int, Field(ge=1024)] = 4 << 30
    max_batch_lines: Annotated[int, Field(ge=1)] = 5_000_000
    file_seconds: Annotated[float, Field(ge=60, le=30 * 86_400, allow_inf_nan=False)] = 7 * 86_400.0
    batch_runner: Literal["auto", "separate"] = "auto"
    root_dialect: str = "superset"
    allowed_origins: str = ""
    webhook_networks: str = ""

    @property
    def origins(self) -> list[str]:
        """`allowed_origins` as a list."""
        return [origin for part in self.allowed_origins.split(",") if (origin := part.strip().rstrip("/"))]

    def per_process(self, limit: int) -> int:
        """The part of a limit that applies to one process."""
        return limit // self.processes

    @field_validator("max_connections", "max_waiting")
    @classmethod
    def _require_one_for_each_process(cls, value: int, info: ValidationInfo) -> int:
        # Missing when it is invalid itself.
        if value < (processes := info.data.get("processes", 1)):
            message = f"must be at least {PREFIX}PROCESSES, which is {processes}"
            raise PydanticCustomError("processes", "{message}", {"message": message})
        return value

    @field_validator("root_dialect")
    @classmethod
    def _require_known_dialect(cls, value: str) -> str:
        if value not in (known := [family.name for family in FAMILIES]):
            raise PydanticCustomError("dialect", "{message}", {"message": f"must be one of {', '.join(known)}"})
        return value
