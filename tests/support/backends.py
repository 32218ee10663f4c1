"""Which databases a test is for, and whether its application has pages; unless it says so, both, and none."""

import pytest

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"])
"""For what is decided before any statement, or by statements that other tests have on both databases."""


WITH_PAGES = pytest.mark.pages
"""For a test, or as `pytestmark` a module, that looks at pages."""


def on_both_once(name: str, values: list[str]) -> pytest.MarkDecorator:
    """All `values` of a parameter on SQLite, and the first one on PostgreSQL, too."""
    return pytest.mark.parametrize(
        (name, "backend"), [*((value, "sqlite") for value in values), (values[0], "postgresql")]
    )
