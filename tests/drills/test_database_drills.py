"""The drills about what is between a server and its PostgreSQL, in their small form."""

import pytest

from drills import failover, pooler
from drills.ground import Verdict
from tests.drills.judged import judge
from tests.support.postgres import Postgres


@pytest.fixture
def empty_database(postgres: Postgres) -> str:
    """The drill's instances migrate it themselves."""
    return postgres.create_database()


def test_nothing_fails_behind_a_pooler(empty_database: str) -> None:
    """Both drivers, two instances, twenty lives at once."""
    figures = pooler.pooled_lives(empty_database, rounds=1, workers=1)
    assert len(figures) == 4
    judge(figures)


def test_without_a_pooler_the_drill_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2: it has shown nothing."""
    monkeypatch.delenv("LATCHSTRING_TEST_PGBOUNCER", raising=False)
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    with pytest.raises(SystemExit) as exit_:
        pooler.drill("postgresql://nobody@127.0.0.1:9/nothing", rounds=1)
    assert exit_.value.code == Verdict.TOO_BUSY
    assert capsys.readouterr().err == "this drill needs PgBouncer\n"


def test_nothing_acknowledged_is_lost_in_a_failover(empty_database: str) -> None:
    """One promotion under load, both drivers."""
    figures = failover.drill(empty_database, rounds=1, workers=1, load_seconds=1)
    assert len(figures) == 5
    judge(figures)
