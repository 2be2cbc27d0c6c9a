"""The API's settings, each read from RERANKQ_<NAME>."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from api.dialects.registry import FAMILIES
from shared.settings import Seconds, Settings


class ApiSettings(Settings):
    """Where to listen, and the limits.

    `allow_anonymous`: listen beyond loopback although no key is configured.
    `max_body_bytes`: a larger body is refused unread. `max_documents`: for one request.
    `wait_seconds`: how long a call waits for its result before it is answered 504 and the job goes on.
    `job_deadline_seconds`: a job that nobody has begun to score by then expires.
    `result_seconds`: how long a finished job can be read.
    `shard_tokens`: a job is cut into shards of so many estimated tokens, a few seconds of an engine's time each.
    `batch_window`: so many shards of one batch job are in the queue at once. `root_dialect`: who speaks at the root,
    by its prefix. `allowed_origins`: whose pages may call from a browser, separated by commas; `*` is everybody's.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    allow_anonymous: bool = False
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    max_documents: Annotated[int, Field(ge=1)] = 10_000
    wait_seconds: Seconds = 60.0
    job_deadline_seconds: Seconds = 86_400.0
    result_seconds: Seconds = 3600.0
    shard_tokens: Annotated[int, Field(ge=1)] = 16_384
    batch_window: Annotated[int, Field(ge=1)] = 32
    root_dialect: str = "superset"
    allowed_origins: str = ""

    @property
    def origins(self) -> list[str]:
        """The allowed ones, one by one."""
        return [origin for part in self.allowed_origins.split(",") if (origin := part.strip().rstrip("/"))]

    @field_validator("root_dialect")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (known := [family.name for family in FAMILIES]):
            raise PydanticCustomError("dialect", "{message}", {"message": f"must be one of {', '.join(known)}"})
        return value
