"""Jinja2: an environment for each language, a host's templates before ours."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, Template

from latchstring.foundation.web.pages.translations import Words

OURS = Path(__file__).with_name("templates")


class Templates:
    """Every template, by its name."""

    def __init__(self, overrides: Path | None) -> None:
        self._overrides = overrides
        self._folders = [OURS]
        self._environments: dict[str, Environment] = {}

    def add_folder(self, folder: Path) -> None:
        """Take a room's templates in."""
        self._folders.append(folder)

    def get(self, name: str, words: Words) -> Template:
        """Return a template that speaks the language of `words`."""
        environment = self._environments.get(words.language)
        if environment is None:
            environment = self._environments[words.language] = self._environment(words)
        return environment.get_template(name)

    def _environment(self, words: Words) -> Environment:
        ours: BaseLoader = FileSystemLoader(self._folders)
        loaders: Iterable[BaseLoader] = (ours, PrefixLoader({"latchstring": ours}))
        if self._overrides is not None:
            loaders = (FileSystemLoader(self._overrides), *loaders)
        environment = Environment(
            autoescape=True,
            # A name that nobody gave is a mistake, and not an empty place on a page.
            undefined=StrictUndefined,
            loader=ChoiceLoader(list(loaders)),
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        # So that macros have them, which are made once and not for each page.
        environment.globals |= {"lang": words.language, "dir": words.direction}
        install: Callable[..., Any] = environment.install_gettext_translations  # type: ignore[attr-defined]  # the extension's
        install(words.catalogue, newstyle=True)
        return environment
