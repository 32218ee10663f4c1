"""A form: what was filled in, and what is wrong with it."""

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
    """What a template shows of a form. Secrets are never among its values."""

    values: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[FieldProblem, ...] = ()
    summary: str | None = None
    """What is wrong, and of no single field."""

    @property
    def is_wrong(self) -> bool:
        """Whether there is something to mend."""
        return bool(self.errors) or self.summary is not None

    def value(self, name: str) -> str:
        """Return what a field holds."""
        return self.values.get(name, "")

    def error(self, name: str) -> str | None:
        """Return what is wrong with a field."""
        return next((problem.message for problem in self.errors if problem.name == name), None)


def without(fields: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Return what may be shown again of what was sent."""
    hidden = frozenset(secrets)
    return {name: value for name, value in fields.items() if name not in hidden}


def problems_of(
    error: ValidationError, translate: Translations, *, blank: Mapping[str, str]
) -> tuple[FieldProblem, ...]:
    """Return what is wrong with each field, in the order of the fields, for people.

    Args:
        error: what Pydantic found.
        translate: into the visitor's language.
        blank: of each field, what is said where it was left empty.
    """
    found: dict[str, FieldProblem] = {}
    for each in error.errors(include_input=False, include_url=False):
        name = str(each["loc"][0])
        found.setdefault(name, FieldProblem(name, _message(each, blank[name], translate)))
    return tuple(found[name] for name in blank if name in found)


_MESSAGES = {
    "string_too_long": msgid("Use at most %(most)s characters."),
    "too_long": msgid("Use at most %(most)s characters."),
    "string_too_short": msgid("Use at least %(least)s characters."),
    "too_short": msgid("Use at least %(least)s characters."),
    "string_pattern_mismatch": msgid("Use letters, digits, spaces and signs only."),
    "value_error": msgid("Enter an e-mail address, such as name@example.com."),
}


def _message(problem: Any, blank: str, translate: Translations) -> str:  # noqa: ANN401 -- an untyped dictionary of Pydantic's
    context = problem.get("ctx", {})
    least = context.get("min_length")
    kind = problem["type"]
    if kind == "missing" or (kind in {"string_too_short", "too_short"} and least == 1):
        return translate(blank)
    return translate(_MESSAGES[kind], most=context.get("max_length"), least=least)
