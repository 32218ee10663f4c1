"""How rates are written, read and set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstring.apps.environment import settings_from
from latchstring.errors import ConfigurationError
from latchstring.foundation.limits import LimitSettings, Rate

UNITS = {"s": 1, "m": 60, "h": 3600}
NAMES = ("LIMIT_ACCOUNT", "LIMIT_ADDRESS", "LIMIT_REGISTER", "LIMIT_REFRESH")


def test_the_rates_as_they_come() -> None:
    """Ten failures an account, a hundred an address, twenty registrations an hour, sixty refreshes a minute; all on."""
    settings = LimitSettings()
    assert settings.limits is True
    assert settings.limit_account == Rate(10, 15 * 60)
    assert settings.limit_address == Rate(100, 15 * 60)
    assert settings.limit_register == Rate(20, 60 * 60)
    assert settings.limit_refresh == Rate(60, 60)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/15m", Rate(10, 900)),
        (" 3 / 1 h ", Rate(3, 3600)),
        ("1/1s", Rate(1, 1)),
        ("999999999/999999h", Rate(999_999_999, 3_599_996_400)),
        ("007/01m", Rate(7, 60)),
    ],
)
def test_what_can_be_written(text: str, rate: Rate) -> None:
    """Times, a slash, and a number of seconds, minutes or hours."""
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "10", "10/", "/15m", "0/15m", "10/0m", "-1/15m", "10/-15m", "1e3/1m", "10/15", "10/15d", "10/15M"),
        *("10/15m/2", "10/15m 5", "1.5/15m", "10/0.5m", "10/.5m", "10/nanm", "10/infh", "10:15m", "1_0/15m"),
    ],
)
def test_what_is_no_rate(text: str) -> None:
    """A limit that forbids everything, or lasts no time, or cannot be read, is refused at the start."""
    with pytest.raises(ValueError, match="rate"):
        Rate.parse(text)


@pytest.mark.parametrize(("times", "seconds"), [(0, 60), (10, 0), (-1, 60), (10, -1)])
def test_what_is_no_rate_given_as_numbers(times: int, seconds: int) -> None:
    """It would refuse everybody, or nobody."""
    with pytest.raises(ValueError, match="at least"):
        Rate(times, seconds)


@given(times=st.integers(1, 999_999_999), number=st.integers(1, 999_999), unit=st.sampled_from(sorted(UNITS)))
def test_what_is_shown_can_be_written(times: int, number: int, unit: str) -> None:
    """A rate is shown in the notation it is read in, and means the same."""
    rate = Rate.parse(f"{times}/{number}{unit}")
    assert rate == Rate(times, number * UNITS[unit])
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_variable(name: str) -> None:
    """Each rate is a setting of its own; a wrong one is named, and not repeated."""
    settings = settings_from({f"LATCHSTRING_{name}": "7/2h"})
    rates = {other: getattr(settings, other.lower()) for other in NAMES}
    assert rates.pop(name) == Rate(7, 7200)
    assert rates == {other: getattr(LimitSettings(), other.lower()) for other in rates}
    with pytest.raises(ConfigurationError, match=f"LATCHSTRING_{name}: must be a rate such as 10/15m") as caught:
        settings_from({f"LATCHSTRING_{name}": "seven a day"})
    assert "seven" not in str(caught.value)


@pytest.mark.parametrize(("text", "is_on"), [("off", False), ("on", True), ("", True)])
def test_the_switch(text: str, is_on: bool) -> None:  # noqa: FBT001
    """LATCHSTRING_LIMITS=off lifts them, and an empty variable does not."""
    assert settings_from({"LATCHSTRING_LIMITS": text}).limits is is_on
