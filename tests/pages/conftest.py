"""What tests of pages may ask for beside everybody else's: settings with pages."""

import pytest

from latchstring import Settings
from tests.support.service import cheap_settings


@pytest.fixture
def settings(database_url: str) -> Settings:
    return cheap_settings(database_url)
