"""The model registry: what infra/models.yaml serves, under which names. Says where weights are; never loads them."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from shared.errors import ConfigurationError, ModelNotFound

_PACKAGE_SOURCE = "package:"

MAX_WORKERS = 1000
"""Of one pool: a typing error should not rent a data centre."""
_LONGEST_SECONDS = 7 * 24 * 3600.0

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@+-]*$", max_length=200)]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@+:-]*$", max_length=200)]
"""Clients say `NAME:TAG`; a name of ours is part of keys in Redis, where colons part."""


class PoolSettings(BaseModel):
    """How many workers a model has, and when; `shared.pools.scaling` decides by these.

    `min` workers always run, `max` never more. After `idle_seconds` without a job the pool goes down to `min`. While
    work is outstanding there are as many workers as bring it to its end within `target_drain_seconds`, and one is
    given up only when fewer have sufficed for `cooldown_seconds`. `batch_wakes` false: jobs that nobody waits for
    start no worker. `standby`: a process that has imported the engine, and holds no model, waits to become a worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: int = Field(default=0, ge=0, le=MAX_WORKERS)
    max: int = Field(default=1, ge=1, le=MAX_WORKERS, validate_default=True)
    idle_seconds: float = Field(default=300.0, ge=0, le=_LONGEST_SECONDS)
    target_drain_seconds: float = Field(default=30.0, ge=1, le=_LONGEST_SECONDS)
    batch_wakes: bool = True
    cooldown_seconds: float = Field(default=60.0, ge=0, le=_LONGEST_SECONDS)
    standby: bool = False

    @field_validator("max")
    @classmethod
    def _not_below_min(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min", 0)
        if value < least:
            raise ValueError(f"must not be below min, which is {least}")
        return value


class ModelSpec(BaseModel):
    """One model. `source` is a hub id, a folder, or `package:NAME/FOLDER` inside an installed Python package.

    `engine` picks what scores it; `engine_args` go to that engine as they are. `score_template` is how a pair becomes
    a prompt, for language models that rerank: a shipped template's name, or a file. `listwise`: a document's score
    depends on its neighbours, so that a request is never cut, and its scores are never remembered.
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
    pool: PoolSettings = PoolSettings()

    def location(self) -> str:
        """Where the weights are, for a loader: a folder, or a hub id. Raises ConfigurationError."""
        if not self.source.startswith(_PACKAGE_SOURCE):
            return self.source or self.name
        package, _, folder = self.source.removeprefix(_PACKAGE_SOURCE).partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            # The parent of a dotted name is missing, or the name is none.
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ConfigurationError(
                f"model {self.name!r}: the Python package {package!r} is not installed", param="source"
            )
        return str(Path(spec.submodule_search_locations[0]) / folder)


class ModelRegistry:
    """The models served, by name and alias; the first one answers a request that names none."""

    def __init__(self, specs: list[ModelSpec]) -> None:
        """Raises ConfigurationError when there is no model, or a name stands twice."""
        if not specs:
            raise ConfigurationError("no model is configured", param="models")
        self.specs = list(specs)
        self._by_name: dict[str, ModelSpec] = {}
        self._in_lower_case: dict[str, ModelSpec] = {}
        for spec in specs:
            for name in (spec.name, *spec.aliases):
                if name in self._by_name:
                    raise ConfigurationError(f"the model name {name!r} stands twice", param="models")
                self._by_name[name] = spec
                self._in_lower_case.setdefault(name.lower(), spec)

    @property
    def default(self) -> ModelSpec:
        return self.specs[0]

    def resolve(self, name: str | None) -> ModelSpec:
        """The model of that name or alias, the default one for None. Raises ModelNotFound.

        The name may have a provider before it, as gateways write it: `vllm/NAME` is NAME, unless it is a name itself.
        In another case it is found, too; of names that differ in nothing else, the first.
        """
        if name is None:
            return self.default
        bare = name.partition("/")[2]
        spec = self._by_name.get(name) or self._by_name.get(bare)
        spec = spec or self._in_lower_case.get(name.lower()) or self._in_lower_case.get(bare.lower())
        if spec is None:
            served = ", ".join(spec.name for spec in self.specs)
            raise ModelNotFound(f"model {name[:200]!r} is not served here; served: {served}", param="model")
        return spec


def parse_models(content: Mapping[str, Any]) -> ModelRegistry:
    """The registry that a models file's content describes. Raises ConfigurationError naming the field."""
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
            raise ConfigurationError(f"models[{position}].{where}: {_said(first['msg'])}", param="models") from error
    return ModelRegistry(specs)


def _said(message: str) -> str:
    """Pydantic's words without what it puts before ours."""
    return message.removeprefix("Value error, ")


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
