"""Jinja2 environments, one for each language. An application's templates take the place of ours."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, Template

from latchstring.foundation.web.pages.translations import Translations

OURS = Path(__file__).with_name("templates")


class Templates:
    """The templates of all packages, by name."""

    def __init__(self, overrides: Path | None) -> None:
        self._overrides = overrides
        self._folders = [OURS]
        self._environments: dict[str, Environment] = {}

    def add_folder(self, folder: Path) -> None:
        """Add a package's templates."""
        self._folders.append(folder)

    def get(self, name: str, translate: Translations) -> Template:
        """Return a template in the language of `translate`."""
        environment = self._environments.get(translate.language)
        if environment is None:
            environment = self._environments[translate.language] = self._environment(translate)
        return environment.get_template(name)

    def _environment(self, translate: Translations) -> Environment:
        ours: BaseLoader = FileSystemLoader(self._folders)
        # `latchstring/NAME` always names ours, so that an application's template can extend the one it replaces.
        loaders: Iterable[BaseLoader] = (ours, PrefixLoader({"latchstring": ours}))
        if self._overrides is not None:
            loaders = (FileSystemLoader(self._overrides), *loaders)
        environment = Environment(
            # In every template, whatever its suffix: names and emails are strangers' input (CVE-2024-28855).
            autoescape=True,
            # A misspelt variable is an error, not an empty string on a page.
            undefined=StrictUndefined,
            loader=ChoiceLoader(list(loaders)),
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
            # Otherwise each request checks the files' modification times.
            auto_reload=False,
        )
        # Globals, because macros are compiled once per environment and do not see a page's variables.
        environment.globals |= {"lang": translate.language, "dir": translate.direction}
        install: Callable[..., Any] = environment.install_gettext_translations  # type: ignore[attr-defined]  # the extension's
        install(translate.catalogue, newstyle=True)
        return environment
