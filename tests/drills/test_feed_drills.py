"""The drills about the feed and about what was answered, in their small form."""

from drills import feed, kill, revocation_delay
from tests.drills.judged import judge


def test_a_sign_out_is_known_everywhere(database_url: str) -> None:
    """On two instances, beside a transaction that commits late, and between clocks ten minutes apart."""
    figures = revocation_delay.drill(database_url, rounds=2, workers=1, held_seconds=1)
    assert len(figures) == (7 if database_url.startswith("postgresql") else 5)
    judge(figures)


def test_what_was_answered_survives_a_kill(database_url: str) -> None:
    """Registrations are there, refreshes go on from where they were, and no session has two living branches."""
    # On PostgreSQL the harder one: the database is killed as well.
    is_sqlite = database_url.startswith("sqlite")
    figures = kill.drill(database_url, rounds=1, workers=1) if is_sqlite else kill.drill_database(rounds=1, workers=1)
    assert len(figures) == 4
    judge(figures)


def test_what_is_done_elsewhere_delays_no_guard() -> None:
    """T6 and T8: a transaction open in another database, a restore into another cluster, a pool that is used up."""
    judge(feed.drill("", rounds=1, entries=2_500, held_seconds=5.5))
