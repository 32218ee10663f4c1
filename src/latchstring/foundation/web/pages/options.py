"""Pages: an application's options for its pages, such as name, theme, templates and languages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from latchstring.annotations import InstanceOnly
from latchstring.errors import ConfigurationError

_VARIABLE = re.compile(r"[a-z][a-z0-9-]*")
# What would end the declaration, or fetch something. A theme has colors, lengths and fonts only.
_NOT_A_VALUE = re.compile(r"[;{}<>\\@]|/\*|url\(|[\x00-\x1f\x7f]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages(InstanceOnly):
    """How the pages look, and where they lead: `Auth(…, pages=Pages(name="Acme", theme={"accent": "#0a6"}))`.

    Args:
        name: the application's name, in the header and in titles.
        logo: the path of an image beside the name, on this origin: `/static/logo.svg`.
        theme: CSS variables of the pages, without the leading dashes, and their values. `light-dark(…, …)` gives one
            value for each color scheme.
        landing_page: where visitors are redirected after a sign-in without `next`: a path of the application. None: the
            account page.
        links: entries of the navigation before our own pages: a label, and a path of the application.
        templates: a directory whose templates replace ours of the same name. `latchstring/NAME` still names ours.
        locale: a directory of compiled catalogues, `LANGUAGE/LC_MESSAGES/latchstring.mo`, one for each language.

    Raises:
        ConfigurationError: an invalid theme, a path that is not one, or a directory that does not exist.
    """

    name: str = "Latchstring"
    logo: str | None = None
    theme: Mapping[str, str] = field(default_factory=dict)
    landing_page: str | None = None
    links: Sequence[tuple[str, str]] = ()
    templates: str | PathLike[str] | None = None
    locale: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Refuse options that can't work."""
        for variable, value in self.theme.items():
            if not _VARIABLE.fullmatch(variable) or not value.strip() or _NOT_A_VALUE.search(value):
                raise ConfigurationError(
                    f"the theme's {variable!r} must be a CSS variable with a plain value, without url(), braces or ;"
                )
        for path in (self.logo, self.landing_page, *(path for _, path in self.links)):
            # Our content security policy refuses images of other origins. Two slashes would begin another origin.
            if path is not None and (not path.startswith("/") or path.startswith("//") or not path.isascii()):
                raise ConfigurationError(
                    f"{path!r} must be a path on the application's own origin: begin it with one slash, in ASCII"
                )
        for directory in (self.templates, self.locale):
            if directory is not None and not Path(directory).is_dir():
                raise ConfigurationError(f"the directory {directory} of the pages' templates or locale does not exist")
