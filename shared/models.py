"""The model registry: the models in infra/models.yaml, their names and settings.

Owns the validation of that file and the lookup of names. Knows where weights are stored, but never loads them.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from shared.errors import ConfigurationError, ModelNotFound

_PACKAGE_SOURCE = "package:"

MAX_WORKERS = 1000
"""Upper limit of `pool.max`, so that a typing error does not start thousands of machines."""
_MAX_SECONDS = 7 * 24 * 3600.0

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@+-]*$", max_length=200)]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@+:-]*$", max_length=200)]
"""An alias may contain a colon, because some clients send `NAME:TAG`. A name may not: it is part of Redis keys."""


class PoolSettings(BaseModel):
    """Scaling settings of one model's pool; see `shared.pools.scaling`.

    The pool has `min` to `max` workers. After `idle_seconds` without a job it scales down to `min`. While work is
    outstanding it has enough workers to finish within `target_drain_seconds`, and it scales down only when fewer
    workers were enough for `cooldown_seconds`. With `batch_wakes` false, batch jobs start no worker. With `standby`, a
    process that has imported the engine, but loaded no model, waits to fork workers. A waiting call is refused when it
    would wait longer than `max_wait_seconds`, unless the caller names another wait.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: int = Field(default=0, ge=0, le=MAX_WORKERS)
    max: int = Field(default=1, ge=1, le=MAX_WORKERS, validate_default=True)
    idle_seconds: float = Field(default=300.0, ge=0, le=_MAX_SECONDS)
    target_drain_seconds: float = Field(default=30.0, ge=1, le=_MAX_SECONDS)
    batch_wakes: bool = True
    cooldown_seconds: float = Field(default=60.0, ge=0, le=_MAX_SECONDS)
    standby: bool = False
    max_wait_seconds: float = Field(default=20.0, gt=0, le=_MAX_SECONDS)

    @field_validator("max")
    @classmethod
    def _not_below_min(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min", 0)
        if value < least:
            raise ValueError(f"must not be below min, which is {least}")
        return value


class ModelSpec(BaseModel):
    """One model. `source` is a hub id, a folder, or `package:NAME/FOLDER` inside an installed Python package.

    `engine` names the engine that scores it, which receives `engine_args` unchanged. `score_template` turns a pair into
    a prompt, for language models: the name of a shipped template, or a file. `listwise`: a document's score depends on
    the other documents, so a request is one shard and its scores are not cached. `allow_special_tokens`: special tokens
    that stand in a query or document are read as such, so that a document can end itself and forge another one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    source: str = ""
    revision: str | None = None
    aliases: list[Alias] = []
    engine: str = "vllm"
    engine_args: dict[str, Any] = {}
    score_template: str | None = None
    listwise: bool = False
    allow_special_tokens: bool = False
    pool: PoolSettings = PoolSettings()

    def location(self) -> str:
        """The folder or hub id of the weights. Raises ConfigurationError when the package is not installed."""
        if not self.source.startswith(_PACKAGE_SOURCE):
            return self.source or self.name
        package, _, folder = self.source.removeprefix(_PACKAGE_SOURCE).partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            # The parent of a dotted name is missing, or the name is not a module name.
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ConfigurationError(
                f"model {self.name!r}: the Python package {package!r} is not installed", param="source"
            )
        return str(Path(spec.submodule_search_locations[0]) / folder)


class ModelRegistry:
    """All served models, by name and alias. The first one is the default."""

    def __init__(self, specs: list[ModelSpec]) -> None:
        """Raises ConfigurationError when there is no model, or two have the same name or alias."""
        if not specs:
            raise ConfigurationError("no model is configured", param="models")
        self.specs = list(specs)
        self._by_name: dict[str, ModelSpec] = {}
        self._by_lower_case_name: dict[str, ModelSpec] = {}
        for spec in specs:
            for name in (spec.name, *spec.aliases):
                if name in self._by_name:
                    raise ConfigurationError(f"the model name {name!r} is used twice", param="models")
                self._by_name[name] = spec
                self._by_lower_case_name.setdefault(name.lower(), spec)

    @property
    def default(self) -> ModelSpec:
        return self.specs[0]

    def resolve(self, name: str | None) -> ModelSpec:
        """The model with this name or alias; the default model for None. Raises ModelNotFound.

        An exact match wins. Next, a provider prefix is ignored, as gateways add one (`vllm/NAME`). Last, case is
        ignored; of several models that match then, the first one is returned.
        """
        if name is None:
            return self.default
        unprefixed = name.partition("/")[2]
        by_lower_case_name = self._by_lower_case_name
        spec = self._by_name.get(name) or self._by_name.get(unprefixed)
        spec = spec or by_lower_case_name.get(name.lower()) or by_lower_case_name.get(unprefixed.lower())
        if spec is None:
            served = ", ".join(spec.name for spec in self.specs)
            raise ModelNotFound(f"model {name[:200]!r} is not served here; served: {served}", param="model")
        return spec


def parse_models(content: Mapping[str, Any]) -> ModelRegistry:
    """Build the registry from the content of a models file. Raises ConfigurationError, which names the field."""
    entries = content.get("models")
    if not isinstance(entries, list):
        raise ConfigurationError("`models` must be a list", param="models")
    specs = []
    for position, entry in enumerate(entries):
        try:
            specs.append(ModelSpec.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            # Pydantic puts this prefix before the messages of our own validators.
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"models[{position}].{where}: {message}", param="models") from error
    return ModelRegistry(specs)


def load_models(path: Path) -> ModelRegistry:
    """Read a models file. Raises ConfigurationError."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read the models file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the models file {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"the models file {path} must be a mapping with `models`")
    return parse_models(content)
