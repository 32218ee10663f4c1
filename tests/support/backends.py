"""Which databases a test is for; unless it says so, both."""

import pytest

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"])
"""For what is decided before any statement, or by statements that other tests have on both databases."""


def on_both_once(name: str, values: list[str]) -> pytest.MarkDecorator:
    """All `values` of a parameter on SQLite, and the first one on PostgreSQL, too."""
    return pytest.mark.parametrize(
        (name, "backend"), [*((value, "sqlite") for value in values), (values[0], "postgresql")]
    )
