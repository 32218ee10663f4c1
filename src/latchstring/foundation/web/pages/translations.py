"""Translations: a gettext catalogue for each language, and the choice of a visitor's language.

English is in the code and the templates, as usual with gettext, and needs no catalogue. `locale/latchstring.pot` lists
every sentence to translate.
"""

import gettext
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from latchstring.errors import ConfigurationError
from latchstring.foundation.web.cookies import RawHeaders, read_cookies

DOMAIN = "latchstring"
OURS = Path(__file__).with_name("locale")
SOURCE_LANGUAGE = "en"
COOKIE = "latchstring_language"
"""The cookie with the language that the visitor chose. It wins over `Accept-Language`."""

_RIGHT_TO_LEFT = {"ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "syr", "ug", "ur", "yi"}
# Browsers send a handful. A header of thousands would be parsed and sorted on every page.
_MAX_RANGES = 20


def msgid(text: str) -> str:
    """Mark a sentence for the catalogues. It is translated where it is rendered."""
    return text


@dataclass(frozen=True, slots=True)
class Translations:
    """The translations into one language."""

    language: str
    """A language tag (RFC 5646), such as `pt-BR`."""
    catalogue: gettext.NullTranslations

    @property
    def direction(self) -> str:
        """The direction of writing: `rtl` or `ltr`."""
        primary, *rest = self.language.lower().split("-")
        return "rtl" if primary in _RIGHT_TO_LEFT or {"arab", "hebr"} & set(rest) else "ltr"

    @property
    def own_name(self) -> str:
        """The language's name in the language itself."""
        # Translators: the name of the language you translate into, in that language.
        return self(msgid("English"))

    def __call__(self, text: str, **values: object) -> str:
        """Return a sentence in this language, with its placeholders filled."""
        translated = self.catalogue.gettext(text)
        return translated % values if values else translated


class Languages:
    """English, and every language with a catalogue."""

    def __init__(self, *folders: Path) -> None:
        self._translations = {SOURCE_LANGUAGE: Translations(SOURCE_LANGUAGE, gettext.NullTranslations())}
        for file in (file for folder in folders for file in sorted(folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))):
            language = file.parts[-3].replace("_", "-")
            try:
                with file.open("rb") as stream:
                    self._translations[language] = Translations(language, gettext.GNUTranslations(stream))
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"{file} is not a compiled catalogue: compile its .po file with pybabel or msgfmt"
                ) from error
        # Language tags are case-insensitive (RFC 5646, 2.1.1).
        self._tags = {language.lower(): language for language in self._translations}

    def __iter__(self) -> Iterator[Translations]:
        """Return all translations, English first."""
        return iter(self._translations.values())

    def tag_of(self, language: str) -> str | None:
        """Return the language's tag as the catalogues spell it; None if there is no such language."""
        return self._tags.get(language.lower())

    def spoken_by(self, headers: RawHeaders) -> Translations:
        """Return a visitor's translations: the language they chose, else the browser's, else English."""
        # The usual case, and on every page: nothing to parse.
        if len(self._translations) == 1:
            return self._translations[SOURCE_LANGUAGE]
        headers = list(headers)
        # A duplicate does no harm, unlike with tokens: the first language that exists is used.
        for chosen in read_cookies(headers, COOKIE.encode()):
            language = self.tag_of(chosen)
            if language is not None:
                return self._translations[language]
        for name, value in headers:
            if name == b"accept-language":
                return self._translations[negotiated(value.decode("latin-1"), self._tags)]
        return self._translations[SOURCE_LANGUAGE]


def negotiated(accepted: str, tags: Mapping[str, str]) -> str:
    """Return the best available language for an `Accept-Language` header (RFC 9110, 12.5.4; RFC 4647, lookup).

    Args:
        accepted: the header's value.
        tags: the available languages, by their tags in lower case.
    """
    ranked = []
    for position, part in enumerate(accepted.split(",")[:_MAX_RANGES]):
        tag, _, parameter = part.partition(";")
        quality = _quality(parameter)
        if quality > 0:
            ranked.append((-quality, position, tag.strip().lower()))
    for _, _, tag in sorted(ranked):
        subtags = tag.split("-")
        # RFC 4647, 3.4: `de-CH-1996` falls back to `de-CH`, then to `de`.
        while subtags:
            found = tags.get("-".join(subtags))
            if found is not None:
                return found
            subtags.pop()
    return SOURCE_LANGUAGE


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    # Written so that NaN, which `float` parses, fails the comparison too: it would make the order arbitrary.
    return quality if 0 <= quality <= 1 else 0.0
