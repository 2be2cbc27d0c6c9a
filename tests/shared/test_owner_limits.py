import pytest

from shared.owner_limits import OwnerLimits


@pytest.mark.parametrize(
    ("limits", "exceeded", "policy"),
    [
        (OwnerLimits(requests_per_second=5), "requests", '"requests";q=5;w=1'),
        (OwnerLimits(requests_per_second=2.5), "requests", '"requests";q=25;w=10'),
        (OwnerLimits(requests_per_second=0.2), "requests", '"requests";q=1;w=5'),
        (OwnerLimits(pairs_per_minute=600), "pairs", '"pairs";q=600;w=60'),
        (OwnerLimits(pending_tokens=10**9), "tokens", '"pending-tokens";q=1000000000'),
        (OwnerLimits(unfinished_jobs=3), "jobs", '"unfinished-jobs";q=3'),
    ],
)
def test_the_policy_has_whole_numbers(limits: OwnerLimits, exceeded: str, policy: str) -> None:
    assert limits.error(exceeded, 0).policy == policy


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, 1), (1000, 1), (1001, 2), (0, 2)])
def test_retry_after_is_rounded_up(milliseconds: int, seconds: int) -> None:
    assert OwnerLimits(requests_per_second=1).error("requests", milliseconds).retry_after == seconds
