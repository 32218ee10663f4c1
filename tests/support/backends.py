"""Marks for tests: which databases they run on, and that their application has pages.

A test without marks runs on both databases, and its application has no pages.
"""

import pytest

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"])
"""For what is decided before any statement, or by statements that other tests have on both databases."""

ON_POSTGRESQL = pytest.mark.parametrize("backend", ["postgresql"])
"""For what SQLite does not have."""

WITH_PAGES = pytest.mark.pages
"""Gives the application of a test pages; as `pytestmark`, of all tests of a module."""


def on_both_once(name: str, values: list[str]) -> pytest.MarkDecorator:
    """All `values` of a parameter on SQLite, and the first one on PostgreSQL, too."""
    return pytest.mark.parametrize(
        (name, "backend"), [*((value, "sqlite") for value in values), (values[0], "postgresql")]
    )
