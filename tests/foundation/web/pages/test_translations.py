"""Translations: which language a visitor reads, that every word is in the catalogues, and that none was forgotten."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.frontend import CommandLineInterface
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from latchstring import ConfigurationError
from latchstring.foundation.web.pages.agents import named
from latchstring.foundation.web.pages.translations import COOKIE, OURS, Languages, negotiated
from tests.support.backends import WITH_PAGES
from tests.support.folders import ROOT
from tests.support.pages import SIGN_UP, Visitor, hidden, signed_up, visitor
from tests.support.service import Service, credentials

pytestmark = WITH_PAGES

POT = OURS / "latchstring.pot"
PSEUDO = "ar-XB"
"""Arabic as nobody speaks it: what is not in its brackets was forgotten, and it is written from right to left."""


def test_the_catalogue_lists_every_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`latchstring.pot` is what Babel finds in code and templates; the command is in pyproject.toml."""
    options = ("-F", "pyproject.toml", "-k", "msgid", "-c", "Translators:")
    form = ("--no-location", "--sort-output", "--omit-header")
    found = tmp_path / "found.pot"
    monkeypatch.chdir(ROOT)
    pybabel = CommandLineInterface()
    pybabel.run(["pybabel", "-q", "extract", *options, *form, "-o", str(found), "src/latchstring"])  # type: ignore[no-untyped-call]
    assert found.read_text() == POT.read_text(), "extract it again"


ACCEPTED = {
    "": "en",
    "de": "de",
    "de-CH": "de",
    "DE-ch-1996, fr;q=0.9": "de",
    "fr, pt-BR;q=0.5": "pt-BR",
    "pt": "en",
    "pt-br": "pt-BR",
    "fr;q=0, en;q=0.1, de;q=0.2": "de",
    "en-GB, de": "en",
    "*": "en",
    "de;q=0": "en",
    "de;q=nan": "en",
    "de;q=2, pt-BR;q=0.1": "pt-BR",
    ";;;,,,": "en",
    "x," * 5000 + "de": "en",
}


def test_which_language_a_browser_asks_for(subtests: pytest.Subtests) -> None:
    """RFC 9110, 12.5.4, and the lookup of RFC 4647; nonsense is English."""
    for accepted, language in ACCEPTED.items():
        with subtests.test(accepted[:40]):
            assert negotiated(accepted, {"en": "en", "de": "de", "pt-br": "pt-BR"}) == language


NAMES = {
    None: "Unknown client",
    "": "Unknown client",
    "<script>": "Unknown client",
    "curl/8.5": "curl",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0": "Firefox on Linux",
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/18.5 Mobile/15E148 Safari/604.1"
    ): "Safari on iOS",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36": "Chrome on Windows",
}


def test_a_browsers_name(subtests: pytest.Subtests) -> None:
    (english,) = Languages()
    for user_agent, name in NAMES.items():
        with subtests.test(user_agent):
            assert named(user_agent, english) == name


def test_a_catalogue_that_is_none(tmp_path: Path) -> None:
    """Refuses to start, and says which file."""
    file = catalogue_file(tmp_path, "de")
    file.write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match=r"latchstring\.mo is not a compiled catalogue"):
        Languages(tmp_path)


# --- a language that nobody speaks ------------------------------------------------------------------------------------


def catalogue_file(folder: Path, language: str) -> Path:
    file = folder / language.replace("-", "_") / "LC_MESSAGES" / "latchstring.mo"
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def pseudo(tmp_path: Path) -> Languages:
    """Every sentence in brackets, its placeholders as they were."""
    with POT.open() as source:
        catalogue: Catalog = read_po(source, locale="en")
    for message in catalogue:
        if message.id:
            forms = message.id if isinstance(message.id, tuple) else (message.id,)
            translated = tuple(f"⟦{form}⟧" for form in forms)
            message.string = translated if len(translated) > 1 else translated[0]
    with catalogue_file(tmp_path, PSEUDO).open("wb") as file:
        write_mo(file, catalogue)
    return Languages(tmp_path)


class Shown(HTMLParser):
    """Every word of a page that somebody sees or hears."""

    HEARD = ("alt", "aria-label", "data-hide", "data-show", "placeholder", "title")

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        attributes = dict(attrs)
        self.words += [value for name in self.HEARD if (value := attributes.get(name)) and tag != "time"]

    def handle_endtag(self, tag: str) -> None:
        # Back to where it began: some tags have no end.
        while self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"code", "option", "time"} & set(self._open):
            self.words.append(data)


def forgotten(page: str, data: list[str]) -> Iterator[str]:
    """Returns what is on a page and neither translated nor somebody's data."""
    shown = Shown()
    shown.feed(page)
    text = " ".join(" ".join(shown.words).split())
    while "⟦" in text:
        text, replaced = re.sub(r"⟦[^⟦⟧]*⟧", " ", text), text
        assert text != replaced
    for known in data:
        text = text.replace(known, " ")
    return (word for word in text.split() if any(character.isalpha() for character in word))


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_no_word_was_forgotten(service: Service, pseudo: Languages) -> None:
    """On no page, form or refusal is there a word outside the catalogues; `lang` and `dir` say what it is."""
    assert service.auth.mounted is not None
    assert service.auth.mounted.pages
    service.auth.mounted.pages.renderer.languages = pseudo
    language = {"Accept-Language": f"{PSEUDO}, en;q=0.5"}
    ada, nobody = await signed_up(service), visitor(service)
    other = Visitor(service.browser(headers={"User-Agent": "curl/8.5"}))
    await other.sends("/sign-in", credentials())
    open_paths = ("/sign-in?why=ended&next=/account", "/sign-up", "/signed-out")
    own_paths = (
        *("/dashboard", "/account?done=saved", "/account/password?done=changed", "/account/confirm"),
        *("/account/sessions?done=ended", "/account/sessions?done=others"),
    )
    pages = [
        *[await nobody.asks(path, **language) for path in open_paths],
        *[await ada.asks(path, **language) for path in own_paths],
        await ada.asks("/renew", **language | {"Sec-Fetch-Site": "cross-site"}),
        await nobody.asks("/nothing", **language),
        await nobody.asks("/sign-in?next=//x", **language),
        await nobody.sends("/sign-in", {}, **language),
        await nobody.sends("/sign-in", credentials(password="a wrong one"), **language),
        await nobody.sends("/sign-in", {}, Origin="null", **language | {"Sec-Fetch-Site": "cross-site"}),
        await nobody.sends("/sign-up", {}, **language),
        await nobody.sends("/sign-up", SIGN_UP, **language),
        await nobody.sends("/sign-up", {"email": "x", "password": "short", "first_name": "x" * 101}, **language),
        await ada.sends("/account/password", {}, **language),
        await ada.sends("/account/password", {"current_password": "wrong", "new_password": "x" * 300}, **language),
        await ada.sends("/account/confirm", {}, **language),
        await ada.sends("/account", {}, **language),
    ]
    service.clock.advance(minutes=14)
    await ada.asks("/renew")
    service.clock.advance(minutes=2)
    pages += [
        await ada.sends("/account/sessions/end-others", {}, **language),
        await ada.sends("/account/sessions/end-others", {"confirm_password": "wrong"}, **language),
    ]
    service.clock.suspend(seconds=60)
    pages.append(await ada.asks("/account", **language))
    data = ["Latchstring", "Ada", "Lovelace", "ada@example.com", "curl", "python-httpx2", "127.0.0.1", "x" * 101]
    data.append("Hello from the dashboard!")
    for page in pages:
        assert page.headers["content-type"] == "text/html; charset=utf-8", page.url
        assert f'<html lang="{PSEUDO}" dir="rtl"' in page.text
        assert list(forgotten(page.text, data)) == [], str(page.url)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_visitor_chooses(service: Service, pseudo: Languages) -> None:
    """Against what the browser asks for; the choice stays, and leads back to the page it was made on."""
    assert service.auth.mounted is not None
    assert service.auth.mounted.pages
    assert "<select" not in (await visitor(service).asks("/sign-in")).text
    service.auth.mounted.pages.renderer.languages = pseudo
    came = visitor(service)
    english = {"Accept-Language": "en"}
    page = await came.asks("/sign-in?next=/account", **english)
    assert 'lang="en"' in page.text
    assert "⟦English⟧" in page.text
    chosen = await came.sends("/language", hidden(page, "/language") | {"language": PSEUDO})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/sign-in?next=/account")
    (cookie,) = chosen.headers.get_list("set-cookie")
    assert cookie == f"{COOKIE}={PSEUDO}; HttpOnly; Max-Age=31536000; Path=/; SameSite=lax"
    assert f'lang="{PSEUDO}"' in (await came.asks("/sign-in", **english)).text
    came.browser.cookies.set(COOKIE, "tlh", domain="localhost.local")
    assert (await came.sends("/language", {"language": "tlh"})).status_code == 422
    assert (await came.sends("/language", {"language": "en", "next": "//evil.example"})).status_code == 400
