"""Jinja2: an environment for each language, a host's templates before ours."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, Template

from latchstring.foundation.web.pages.translations import Translations

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

    def get(self, name: str, translate: Translations) -> Template:
        """Return a template that speaks the language of `translate`."""
        environment = self._environments.get(translate.language)
        if environment is None:
            environment = self._environments[translate.language] = self._environment(translate)
        return environment.get_template(name)

    def _environment(self, translate: Translations) -> Environment:
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
        environment.globals |= {"lang": translate.language, "dir": translate.direction}
        install: Callable[..., Any] = environment.install_gettext_translations  # type: ignore[attr-defined]  # the extension's
        install(translate.catalogue, newstyle=True)
        return environment
