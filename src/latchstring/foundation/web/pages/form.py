"""A form: its values, and what is wrong with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from latchstring.foundation.web.pages.translations import Translations, msgid


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field, in the visitor's language."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Form:
    """What a template shows of a form. Passwords are never among its values."""

    values: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[FieldProblem, ...] = ()
    summary: str | None = None
    """What is wrong with the form as a whole."""

    @property
    def is_wrong(self) -> bool:
        """Whether there is an error."""
        return bool(self.errors) or self.summary is not None

    def value(self, name: str) -> str:
        """Return the value of a field; empty if there is none."""
        return self.values.get(name, "")

    def error(self, name: str) -> str | None:
        """Return the message of a field's error, or None."""
        return next((problem.message for problem in self.errors if problem.name == name), None)


def without(fields: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Return the fields that may be sent back to the visitor: all but the secrets."""
    # A page with a password in it would stay in the browser's history and cache.
    hidden = frozenset(secrets)
    return {name: value for name, value in fields.items() if name not in hidden}


def problems_of(
    error: ValidationError, translate: Translations, *, blank: Mapping[str, str]
) -> tuple[FieldProblem, ...]:
    """Return one problem for each invalid field, in the order of `blank`, in the visitor's language.

    Args:
        error: Pydantic's error.
        translate: the visitor's translations.
        blank: the message for each field if it was left empty.
    """
    problems: dict[str, FieldProblem] = {}
    # Never Pydantic's own message: it is English, for programmers, and may repeat the value.
    for each in error.errors(include_input=False, include_url=False):
        name = str(each["loc"][0])
        problems.setdefault(name, FieldProblem(name, _message(each, blank[name], translate)))
    return tuple(problems[name] for name in blank if name in problems)


_MESSAGES = {
    "string_too_long": msgid("Use at most %(most)s characters."),
    "too_long": msgid("Use at most %(most)s characters."),
    "string_too_short": msgid("Use at least %(least)s characters."),
    "too_short": msgid("Use at least %(least)s characters."),
    "string_pattern_mismatch": msgid("Use letters, digits, spaces and signs only."),
    "value_error": msgid("Enter an e-mail address, such as name@example.com."),
}


def _message(problem: Any, blank: str, translate: Translations) -> str:  # noqa: ANN401 -- Pydantic's dictionary is untyped
    context = problem.get("ctx", {})
    least = context.get("min_length")
    kind = problem["type"]
    if kind == "missing" or (kind in {"string_too_short", "too_short"} and least == 1):
        return translate(blank)
    return translate(_MESSAGES[kind], most=context.get("max_length"), least=least)
