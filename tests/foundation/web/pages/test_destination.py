"""Where `next` may lead: to a path of our own, or to what is listed, to the letter."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstring.foundation.web.pages.destination import MAX_LENGTH, is_allowed, is_local

OWN = "https://app.example.com"


@pytest.mark.parametrize(
    "destination",
    [
        "/",
        "/account",
        "/reports/2026?page=2&sort=a/b",
        "/a%20b",
        "/~ada/caf%C3%A9",
        "/x?next=https://elsewhere.example/",
    ],
)
def test_a_path_of_our_own_is_allowed(destination: str) -> None:
    assert is_allowed(destination)


@pytest.mark.parametrize(
    "destination",
    [
        "",
        "account",
        "?x",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " /account",
        "/account ",
        "https://evil.example",
        "http:evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "/.//evil.example",
        "/..//evil.example",
        "/%2e//evil.example",
        "/a/..//evil.example",
        "/a/%2E%2e//evil.example",
        "/a%2f..%2f..//evil.example",
        "/a#//evil.example",
        "/caf\u00e9",
        "/%",
        "/%zz",
        "/\x00",
        "/a\r\nSet-Cookie: x=1",
        "/" + "a" * MAX_LENGTH,
    ],
)
def test_nothing_else_is(destination: str) -> None:
    """CVE-2021-32618, CVE-2023-49438, CVE-2026-5467: whatever a browser would read as another place."""
    assert not is_allowed(destination)


def test_a_listed_address_is_allowed_to_the_letter() -> None:
    """Neither its beginning nor what goes on behind it."""
    listed = {"https://app.example.com/welcome"}
    assert is_allowed("https://app.example.com/welcome", listed=listed)
    for other in ("https://app.example.com/", "https://app.example.com/welcome/", "https://app.example.com/welcome?x"):
        assert not is_allowed(other, listed=listed)


@given(st.text(alphabet="/\\.%2eEfF5cC?#:@ \t\nax", max_size=24))
def test_what_is_local_stays_on_the_origin(text: str) -> None:
    """Whatever is let through is resolved to our own origin, by the rules of RFC 3986 and by those of browsers."""
    if is_local(text):
        assert urljoin(OWN + "/sign-in", text).startswith(OWN + "/")
        # As the URL standard has it: backslashes are slashes, tabs and line ends are not there.
        read = text.replace("\\", "/").translate({9: None, 10: None, 13: None})
        assert urlsplit(read).netloc == ""
        assert not read.startswith("//")
