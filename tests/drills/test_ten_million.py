from drills.ten_million import drill

MEASURED = ("takes at most", "is cleared away in", "write no index")
"""What depends on the machine, or on how PostgreSQL has filled its pages: the drill's figures, and not the suite's."""


def test_what_does_not_depend_on_speed_holds_for_twenty_thousand_sessions(database_url: str) -> None:
    """Every statement that matters finds its rows by an index, and only what is old is cleared away."""
    figures = drill(database_url, rounds=20_000)
    steady = [figure for figure in figures if not any(words in figure.promise for words in MEASURED)]
    assert len(steady) == 7
    assert [figure.line() for figure in steady if not figure.is_kept] == []
