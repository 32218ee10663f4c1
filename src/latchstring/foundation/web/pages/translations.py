"""Translations: a gettext catalogue for each language, and which of them a visitor reads.

English is in the code and in the templates, as gettext has it, and needs no catalogue. `locale/latchstring.pot` lists
all there is to translate.
"""

import gettext
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from latchstring.errors import ConfigurationError
from latchstring.foundation.web.cookies import read_cookies

RawHeaders = Iterable[tuple[bytes, bytes]]

DOMAIN = "latchstring"
OURS = Path(__file__).with_name("locale")
SOURCE_LANGUAGE = "en"
COOKIE = "latchstring_language"
"""What the visitor chose; a browser's own list comes after it."""

_RIGHT_TO_LEFT = {"ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "syr", "ug", "ur", "yi"}
_MAX_RANGES = 20


def msgid(text: str) -> str:
    """Mark a sentence for the catalogues; it is translated where it is shown."""
    return text


@dataclass(frozen=True, slots=True)
class Translations:
    """One language's words."""

    language: str
    """A tag of RFC 5646, such as `pt-BR`."""
    catalogue: gettext.NullTranslations

    @property
    def direction(self) -> str:
        """Return `rtl` where it is written from right to left."""
        primary, *rest = self.language.lower().split("-")
        return "rtl" if primary in _RIGHT_TO_LEFT or {"arab", "hebr"} & set(rest) else "ltr"

    @property
    def own_name(self) -> str:
        """Return what those who speak it call it."""
        # Translators: the name of the language you translate into, in that language.
        return self(msgid("English"))

    def __call__(self, text: str, **values: object) -> str:
        """Return a sentence in this language, with its placeholders filled."""
        translated = self.catalogue.gettext(text)
        return translated % values if values else translated


class Languages:
    """Every language there is a catalogue for."""

    def __init__(self, *folders: Path) -> None:
        self._translations = {SOURCE_LANGUAGE: Translations(SOURCE_LANGUAGE, gettext.NullTranslations())}
        for file in (file for folder in folders for file in sorted(folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))):
            language = file.parts[-3].replace("_", "-")
            try:
                with file.open("rb") as opened:
                    self._translations[language] = Translations(language, gettext.GNUTranslations(opened))
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"{file} is no compiled catalogue") from error
        self._tags = {language.lower(): language for language in self._translations}

    def __iter__(self) -> Iterator[Translations]:
        """Return them, English first."""
        return iter(self._translations.values())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._translations)

    def known(self, language: str) -> str | None:
        """Return the language as it is spelled here; None where there is no such."""
        return self._tags.get(language.lower())

    def spoken_by(self, headers: RawHeaders) -> Translations:
        """Return the words for a visitor: what they chose, else what their browser asks for, else English."""
        if len(self._translations) == 1:
            return self._translations[SOURCE_LANGUAGE]
        headers = list(headers)
        for chosen in read_cookies(headers, COOKIE.encode()):
            language = self.known(chosen)
            if language is not None:
                return self._translations[language]
        for name, value in headers:
            if name == b"accept-language":
                return self._translations[negotiated(value.decode("latin-1"), self._tags)]
        return self._translations[SOURCE_LANGUAGE]


def negotiated(accepted: str, tags: Mapping[str, str]) -> str:
    """Return the first language of an `Accept-Language` line that there is (RFC 9110, 12.5.4; RFC 4647, lookup).

    Args:
        accepted: the line.
        tags: the languages there are, by their tags in lower case.
    """
    ranked = []
    for position, part in enumerate(accepted.split(",")[:_MAX_RANGES]):
        tag, _, parameter = part.partition(";")
        quality = _quality(parameter)
        if quality > 0:
            ranked.append((-quality, position, tag.strip().lower()))
    for _, _, tag in sorted(ranked):
        subtags = tag.split("-")
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
    # A comparison that NaN does not pass either.
    return quality if 0 <= quality <= 1 else 0.0
