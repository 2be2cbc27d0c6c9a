"""Settings that the API and the workers share, read once from environment variables. Errors name the variable."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.errors import ConfigurationError
from shared.logs import LogForm
from shared.tracing import TracingForm

PREFIX = "RERANKQ_"
YEAR_SECONDS = 365 * 86_400.0

Seconds = Annotated[float, Field(gt=0, le=YEAR_SECONDS, allow_inf_nan=False)]


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Settings(BaseModel):
    """Field NAME is read from the variable RERANKQ_NAME; `redis_url` is also read from REDIS_URL.

    An empty variable counts as unset, because compose files pass unset variables on as empty ones.

    `log_form`: `text` for people, `json` for machines; `auto` is text on a terminal. `metrics_port`: where a process
    other than the API serves its metrics, or on the next free port; 0: nowhere. `tracing`: where spans are exported.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")] = "redis://127.0.0.1:6379/0"
    models_file: Path = Path("infra/models.yaml")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    log_form: LogForm = "auto"
    tracing: TracingForm = "off"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    score_cache: bool = True
    score_cache_seconds: Seconds = 86_400.0
    score_cache_entries: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000

    def to_environment(self) -> dict[str, str]:
        """The variables from which another process reads the same settings."""
        values = self.model_dump(mode="json")
        return {PREFIX + name.upper(): str(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **overrides: object) -> Self:
        """Read the environment; overrides that are not None take precedence. Raises ConfigurationError."""
        source = os.environ if environment is None else environment
        values: dict[str, object] = {}
        if redis_url := source.get("REDIS_URL"):
            values["redis_url"] = redis_url
        for name in cls.model_fields:
            if value := source.get(PREFIX + name.upper()):
                values[name] = value
        values.update({name: value for name, value in overrides.items() if value is not None})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            raise ConfigurationError(f"{PREFIX}{name.upper()}: {first['msg']}", param=name) from error
