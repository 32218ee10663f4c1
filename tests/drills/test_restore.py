"""The drill of a restore in small: one way of each database, one copy. The full one is run by hand."""

from drills.backups import WAYS
from drills.restore import drill
from tests.drills.judged import judge


def test_nothing_of_before_a_restore_is_let_in(database_url: str) -> None:
    """The copy is put back under load, and everyone in it signs in."""
    ways = WAYS["sqlite" if database_url.startswith("sqlite") else "postgresql"]
    figures = drill(database_url, rounds=1, workers=1, ways=ways[:1], copies=1, users=1)
    assert len(figures) == 8
    judge(figures)
