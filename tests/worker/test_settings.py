import pytest

from shared.errors import ConfigurationError
from worker.settings import WorkerSettings


def error_message(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        WorkerSettings.from_environment({f"RERANKQ_{name}": value for name, value in variables.items()})
    return str(caught.value)


@pytest.mark.parametrize(("concurrency", "reserved"), [("", 16), ("8", 2), ("3", 0), ("1", 0)])
def test_a_quarter_of_the_slots_is_reserved_by_default(concurrency: str, reserved: int) -> None:
    settings = WorkerSettings.from_environment({"RERANKQ_CONCURRENCY": concurrency})
    assert settings.reserved == reserved


@pytest.mark.parametrize("reserved", [0, 7])
def test_the_number_of_reserved_slots_can_be_set(reserved: int) -> None:
    variables = {"RERANKQ_CONCURRENCY": "8", "RERANKQ_RESERVED": str(reserved)}
    assert WorkerSettings.from_environment(variables).reserved == reserved


@pytest.mark.parametrize("reserved", ["8", "9"])
def test_at_least_one_slot_must_remain_for_batch_work(reserved: str) -> None:
    message = error_message(CONCURRENCY="8", RESERVED=reserved)
    assert message == f"RERANKQ_RESERVED: must be less than RERANKQ_CONCURRENCY, which is 8; it is {reserved}"


@pytest.mark.parametrize("reserved", ["-2", "some", "1.5"])
def test_an_invalid_number_of_reserved_slots_is_rejected(reserved: str) -> None:
    assert error_message(RESERVED=reserved).startswith("RERANKQ_RESERVED: ")


def test_an_invalid_concurrency_is_reported_under_its_own_name() -> None:
    assert error_message(CONCURRENCY="0", RESERVED="5").startswith("RERANKQ_CONCURRENCY: ")
