from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigurationError, ModelNotFound
from shared.models import ModelRegistry, ModelSpec, PoolSettings, load_models, parse_models

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry() -> ModelRegistry:
    return parse_models(
        {
            "models": [
                {"name": "first", "aliases": ["one", "org/first", "One:latest"]},
                {"name": "second", "engine": "lexical"},
            ]
        }
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, "first"),
        ("first", "first"),
        ("one", "first"),
        ("org/first", "first"),
        ("second", "second"),
        ("vllm/second", "second"),
        ("vllm/org/first", "first"),
        ("cohere/one", "first"),
        ("FIRST", "first"),
        ("vLLM/Org/First", "first"),
        ("one:LATEST", "first"),
    ],
)
def test_model_is_resolved_by_name_alias_prefix_and_case(registry: ModelRegistry, name: str | None, found: str) -> None:
    assert registry.resolve(name).name == found


@pytest.mark.parametrize("name", ["", "third", "first:latest", "/", "second/", "a/b/second", "org/second/first"])
def test_unknown_model_error_lists_the_served_models(registry: ModelRegistry, name: str) -> None:
    with pytest.raises(ModelNotFound, match="is not served here; served: first, second") as caught:
        registry.resolve(name)
    assert caught.value.param == "model"


def test_exact_name_wins_over_another_case() -> None:
    registry = parse_models({"models": [{"name": "model"}, {"name": "Model"}]})
    assert [registry.resolve(name).name for name in ("model", "Model", "MODEL")] == ["model", "Model", "model"]


def test_long_unknown_name_is_truncated_in_the_error(registry: ModelRegistry) -> None:
    with pytest.raises(ModelNotFound) as caught:
        registry.resolve("x" * 10_000)
    assert len(caught.value.message) < 300


def test_default_engine_is_vllm(registry: ModelRegistry) -> None:
    assert [spec.engine for spec in registry.specs] == ["vllm", "lexical"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "`models` must be a list"),
        ({"models": {"name": "m"}}, "`models` must be a list"),
        ({"models": []}, "no model is configured"),
        ({"models": [{"name": "m"}, {"name": "m"}]}, "the model name 'm' is used twice"),
        ({"models": [{"name": "m"}, {"name": "n", "aliases": ["m"]}]}, "the model name 'm' is used twice"),
        ({"models": [{"name": "m", "aliases": ["m"]}]}, "the model name 'm' is used twice"),
        ({"models": [{"source": "x"}]}, r"models\[0\]\.name: Field required"),
        ({"models": [{"name": "m"}, {"name": "n", "engin": "x"}]}, r"models\[1\]\.engin: Extra inputs"),
        ({"models": [{"name": "two words"}]}, r"models\[0\]\.name: String should match"),
        ({"models": [{"name": "a:b"}]}, r"models\[0\]\.name: String should match"),
        ({"models": [{"name": "m", "engine_args": []}]}, r"models\[0\]\.engine_args: Input should be"),
        ({"models": ["m"]}, r"models\[0\]"),
    ],
)
def test_error_names_the_entry_and_field(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_models(content)
    assert caught.value.param == "models"


@pytest.mark.parametrize(
    ("source", "location"), [("", "m"), ("org/model", "org/model"), ("/srv/weights", "/srv/weights")]
)
def test_location_is_a_hub_id_or_a_folder(source: str, location: str) -> None:
    assert ModelSpec(name="m", source=source).location() == location


def test_location_may_be_inside_an_installed_package() -> None:
    location = ModelSpec(name="m", source="package:shared/store/lua").location()
    assert Path(location) == ROOT / "shared" / "store" / "lua"


@pytest.mark.parametrize(
    "source",
    [
        "package:no_such_package/model",
        "package:json.decoder/model",
        "package:no_such_package.part/model",
    ],
)
def test_missing_package_is_a_configuration_error(source: str) -> None:
    with pytest.raises(ConfigurationError, match="is not installed"):
        ModelSpec(name="m", source=source).location()


class TestPool:
    def test_default_pool_scales_to_zero(self, registry: ModelRegistry) -> None:
        assert registry.default.pool == PoolSettings(
            min=0,
            max=1,
            idle_seconds=300,
            target_drain_seconds=30,
            batch_wakes=True,
            cooldown_seconds=60,
            standby=False,
        )

    def test_every_setting_is_read(self) -> None:
        pool = {
            "min": 1,
            "max": 8,
            "idle_seconds": 0,
            "target_drain_seconds": 1,
            "batch_wakes": False,
            "cooldown_seconds": 0,
            "standby": True,
            "max_wait_seconds": 5,
        }
        assert parse_models({"models": [{"name": "m", "pool": pool}]}).default.pool.model_dump() == pool

    @pytest.mark.parametrize(
        ("pool", "message"),
        [
            ({"min": 3, "max": 2}, r"pool\.max: must not be below min, which is 3"),
            ({"min": 2}, r"pool\.max: must not be below min, which is 2"),
            ({"min": -1}, r"pool\.min: Input should be greater than or equal to 0"),
            ({"min": 0.5}, r"pool\.min: Input should be a valid integer"),
            ({"max": 0}, r"pool\.max: Input should be greater than or equal to 1"),
            ({"max": 1001}, r"pool\.max: Input should be less than or equal to 1000"),
            ({"idle_seconds": -1}, r"pool\.idle_seconds: Input should be greater"),
            ({"idle_seconds": float("inf")}, r"pool\.idle_seconds: Input should be a finite number"),
            ({"target_drain_seconds": 0}, r"pool\.target_drain_seconds: Input should be greater than or equal to 1"),
            ({"cooldown_seconds": "soon"}, r"pool\.cooldown_seconds: Input should be a valid number"),
            ({"batch_wakes": "maybe"}, r"pool\.batch_wakes: Input should be a valid boolean"),
            ({"idle": 5}, r"pool\.idle: Extra inputs are not permitted"),
            ([], r"pool: Input should be"),
        ],
    )
    def test_error_names_the_pool_field(self, pool: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"models\[0\]\.{message}"):
            parse_models({"models": [{"name": "m", "pool": pool}]})


class TestFiles:
    def test_shipped_models_file_is_valid(self) -> None:
        assert load_models(ROOT / "infra" / "models.yaml").default.name == "all-MiniLM-L6-v2"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"models: [", "is not YAML"),
            (b"", "must be a mapping"),
            (b"- name: m", "must be a mapping"),
            (b"\xff\xfe\x00", "is not YAML"),
        ],
    )
    def test_invalid_file_is_named_in_the_error(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "models.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=message) as caught:
            load_models(path)
        assert str(path) in caught.value.message

    def test_missing_file_is_named_in_the_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot read the models file .*: No such file or directory"):
            load_models(tmp_path / "models.yaml")
