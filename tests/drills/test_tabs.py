"""The drill of two tabs in small: three rounds, two workers. The full one is run by hand, with `drills/tabs.py`."""

from drills.tabs import drill
from tests.support.browser import chromium


def test_nobody_is_signed_out(database_url: str) -> None:
    """FOUND.md T2, T3: one tab confirms while the other one renews, and both go on."""
    chromium()
    figures = drill(database_url, rounds=3, workers=2)
    assert figures, "nothing was tried"
    assert all(figure.is_kept for figure in figures), "\n".join(["", *(figure.line() for figure in figures)])
