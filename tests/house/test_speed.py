"""What the library may cost the application that has it; the figures themselves are in docs/performance.md.

The best of several rounds counts: whatever else the machine does makes a round slower and none faster.
"""

from pathlib import Path

from benchmarks import library


def test_auth_is_imported_in_less_than_a_third_of_a_second() -> None:
    """Beyond FastAPI and SQLAlchemy, in processor time."""
    assert min(library.import_seconds(times=3)) < 0.3


async def test_a_route_that_is_not_guarded_pays_next_to_nothing(tmp_path: Path) -> None:
    """Two looks into a dictionary, on the way to a route that stands behind ours: microseconds."""
    bare, installed = library.hosts(tmp_path)
    without, with_us = [], []
    for _ in range(25):
        without.append(await library.microseconds(bare, "/open", times=200))
        with_us.append(await library.microseconds(installed, "/open", times=200))
    assert min(with_us) - min(without) < 5


async def test_the_asgi_guard_takes_at_most_fifteen_microseconds(tmp_path: Path) -> None:
    """Before an application that does next to nothing."""
    async with library.signed_in(tmp_path) as (auth, token):
        guarded, without, with_us = auth.protect(library.plain), [], []
        for _ in range(25):
            without.append(await library.microseconds(library.plain, "/file", times=200))
            with_us.append(await library.microseconds(guarded, "/file", token, times=200))
    assert min(with_us) - min(without) < 15
