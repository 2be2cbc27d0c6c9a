import pytest

from shared.errors import ConfigurationError
from worker.settings import WorkerSettings


def mistake(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        WorkerSettings.from_environment({f"RERANKQ_{name}": value for name, value in variables.items()})
    return str(caught.value)


@pytest.mark.parametrize(("concurrency", "reserved"), [("", 16), ("8", 2), ("3", 0), ("1", 0)])
def test_a_quarter_of_the_slots_is_reserved_unless_told_otherwise(concurrency: str, reserved: int) -> None:
    settings = WorkerSettings.from_environment({"RERANKQ_CONCURRENCY": concurrency})
    assert settings.reserved == reserved


@pytest.mark.parametrize("reserved", [0, 7])
def test_what_is_said_is_reserved(reserved: int) -> None:
    variables = {"RERANKQ_CONCURRENCY": "8", "RERANKQ_RESERVED": str(reserved)}
    assert WorkerSettings.from_environment(variables).reserved == reserved


@pytest.mark.parametrize("reserved", ["8", "9"])
def test_batch_work_must_be_left_a_slot(reserved: str) -> None:
    message = mistake(CONCURRENCY="8", RESERVED=reserved)
    assert message == f"RERANKQ_RESERVED: must be less than RERANKQ_CONCURRENCY, which is 8; it is {reserved}"


@pytest.mark.parametrize("reserved", ["-2", "some", "1.5"])
def test_what_is_no_number_of_slots_is_refused(reserved: str) -> None:
    assert mistake(RESERVED=reserved).startswith("RERANKQ_RESERVED: ")


def test_a_wrong_concurrency_is_its_own_mistake() -> None:
    assert mistake(CONCURRENCY="0", RESERVED="5").startswith("RERANKQ_CONCURRENCY: ")
