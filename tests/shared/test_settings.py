from pathlib import Path

import pytest

from api.settings import ApiSettings
from shared.errors import ConfigurationError
from shared.settings import Settings


def test_every_setting_has_a_default() -> None:
    settings = Settings.from_environment({})
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.models_file == Path("infra/models.yaml")


def test_a_field_is_read_from_its_variable() -> None:
    settings = ApiSettings.from_environment({"RERANKQ_PORT": "9000", "RERANKQ_ALLOW_ANONYMOUS": "true", "PORT": "1"})
    assert (settings.port, settings.allow_anonymous) == (9000, True)


def test_empty_variable_counts_as_unset() -> None:
    environment = {"RERANKQ_PORT": "", "REDIS_URL": "", "RERANKQ_REDIS_URL": ""}
    assert ApiSettings.from_environment(environment) == ApiSettings()


def test_redis_url_is_read_without_prefix_but_the_prefixed_variable_wins() -> None:
    plain = {"REDIS_URL": "redis://plain"}
    assert Settings.from_environment(plain).redis_url == "redis://plain"
    assert Settings.from_environment(plain | {"RERANKQ_REDIS_URL": "redis://prefixed"}).redis_url == "redis://prefixed"


def test_override_wins_unless_it_is_none() -> None:
    environment = {"RERANKQ_PORT": "9000"}
    assert ApiSettings.from_environment(environment, port=1234).port == 1234
    assert ApiSettings.from_environment(environment, port=None).port == 9000


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKQ_LOG_LEVEL", "DEBUG")
    assert Settings.from_environment().log_level == "DEBUG"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RERANKQ_PORT", "many"),
        ("RERANKQ_PORT", "70000"),
        ("RERANKQ_ALLOW_ANONYMOUS", "perhaps"),
        ("RERANKQ_WAIT_SECONDS", "0"),
        ("RERANKQ_WAIT_SECONDS", "nan"),
        ("RERANKQ_MAX_BODY_BYTES", "10"),
        ("RERANKQ_LOG_LEVEL", "loud"),
        ("RERANKQ_REDIS_URL", "localhost:6379"),
        ("RERANKQ_RESULT_SECONDS", "inf"),
        ("RERANKQ_SCORE_CACHE", "sometimes"),
        ("RERANKQ_SCORE_CACHE_SECONDS", "0"),
        ("RERANKQ_SCORE_CACHE_ENTRIES", "0"),
    ],
)
def test_error_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        ApiSettings.from_environment({variable: value})
