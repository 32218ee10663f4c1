"""The drills about what is between a server and its PostgreSQL, in their small form."""

import pytest

from drills import failover, pooler
from tests.drills.judged import judge
from tests.support.postgres import Postgres


@pytest.fixture
def empty_database(postgres: Postgres) -> str:
    """The drill's instances migrate it themselves."""
    return postgres.create_database()


def test_nothing_fails_behind_a_pooler(empty_database: str) -> None:
    """Both drivers, two instances, twenty lives at once."""
    figures = pooler.drill(empty_database, rounds=1, workers=1)
    assert len(figures) == 4
    judge(figures)


def test_nothing_acknowledged_is_lost_in_a_failover(empty_database: str) -> None:
    """One promotion under load, both drivers."""
    figures = failover.drill(empty_database, rounds=1, workers=1, load_seconds=1)
    assert len(figures) == 5
    judge(figures)
