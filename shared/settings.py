"""Settings from the environment: one variable a field, read once, every mistake named by its variable."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.errors import ConfigurationError

PREFIX = "RERANKQ_"


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Settings(BaseModel):
    """What the API and the workers both need. A field NAME is read from RERANKQ_NAME; REDIS_URL needs no prefix.

    An empty variable is an absent one: that is how compose files pass on what is not set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")] = "redis://127.0.0.1:6379/0"
    models_file: Path = Path("infra/models.yaml")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **overrides: object) -> Self:
        """Read the environment; an override that is not None wins. Raises ConfigurationError."""
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
