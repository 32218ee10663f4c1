"""Password hashes that run for as long as a test needs, on a machine of any speed."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import argon2
import pytest

from latchstring.foundation.passwords import PasswordHasher
from tests.support.hang import HANG_SECONDS, until


@contextlib.contextmanager
def held_hashes() -> Iterator[None]:
    """Lets each hash that begins meanwhile go on until the block ends; then the library computes it, as ever."""
    released = threading.Event()

    def held(compute: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_compute(*arguments: Any) -> Any:  # noqa: ANN401 -- the library's own
            assert released.wait(HANG_SECONDS)
            return compute(*arguments)

        return wait_and_compute

    with pytest.MonkeyPatch.context() as patch:
        for name in ("hash", "verify"):
            patch.setattr(argon2.PasswordHasher, name, held(getattr(argon2.PasswordHasher, name)))
        try:
            yield
        finally:
            released.set()


async def hashing(hasher: PasswordHasher, number: int = 1) -> None:
    """Waits until so many hashes are under way, or in the queue."""
    await until(lambda: hasher._pending >= number)


async def idle(hasher: PasswordHasher) -> None:
    """Waits until there are none."""
    await until(lambda: not hasher._pending)
