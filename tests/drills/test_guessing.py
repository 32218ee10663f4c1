"""The drill of the limits on guessing in small: two workers, few tries. The full one is run by hand."""

from drills.guessing import drill
from tests.drills.judged import judge


def test_no_more_is_checked_than_the_policy_allows(database_url: str) -> None:
    """Whatever is tried, and through however many workers, the drill sees every promise of its table kept."""
    judge(drill(database_url, rounds=60, workers=2))
