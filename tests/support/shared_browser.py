"""One Chromium for all tests of a process: starting it takes longer than most of them.

A plugin, so that it is one for all modules: `pytest_plugins = ["tests.support.shared_browser"]`. Each visitor has a
context of their own, with its own cookies and its own cache (`tests.support.browser.visiting`).
"""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.support.browser import running_browser


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A real one, which keeps pages alive for the back button, as people's browsers do."""
    async with running_browser(keeps_pages=True) as running:
        yield running
