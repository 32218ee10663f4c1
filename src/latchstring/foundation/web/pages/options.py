"""What an application says of its pages: how they look, which words they use and where they lead."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from latchstring.annotations import InstanceOnly
from latchstring.errors import ConfigurationError

_VARIABLE = re.compile(r"[a-z][a-z0-9-]*")
# What would end the declaration, or fetch something: a theme is colours, lengths and fonts.
_NOT_A_VALUE = re.compile(r"[;{}<>\\@]|/\*|url\(|[\x00-\x1f\x7f]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages(InstanceOnly):
    """How the pages look, and where they lead: `Auth(…, pages=Pages(name="Acme", theme={"accent": "#0a6"}))`.

    Args:
        name: of the application, in the header and in titles.
        logo: the address of an image beside the name, on this origin: `/static/logo.svg`.
        theme: CSS variables of the pages without their dashes, and their values. `light-dark(…, …)` gives two.
        landing_page: where a visitor goes after a sign-in that began nowhere else: a path of the application. None: the
            account page.
        links: what stands in the navigation before our own pages: a label, and a path of the application.
        templates: a folder whose templates take the place of ours by their names; `latchstring/NAME` names ours still.
        locale: a folder of compiled catalogues, `LANGUAGE/LC_MESSAGES/latchstring.mo`, one for each further language.

    Raises:
        ConfigurationError: a theme that is no theme, an address that is no path, a folder that is not there.
    """

    name: str = "Latchstring"
    logo: str | None = None
    theme: Mapping[str, str] = field(default_factory=dict)
    landing_page: str | None = None
    links: Sequence[tuple[str, str]] = ()
    templates: str | PathLike[str] | None = None
    locale: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be shown."""
        for variable, value in self.theme.items():
            if not _VARIABLE.fullmatch(variable) or not value.strip() or _NOT_A_VALUE.search(value):
                raise ConfigurationError(f"the theme's {variable!r} is no CSS variable with a plain value")
        for path in (self.logo, self.landing_page, *(path for _, path in self.links)):
            # The policy of our pages refuses images of other origins, and what is there is no page of the application.
            if path is not None and (not path.startswith("/") or path.startswith("//") or not path.isascii()):
                raise ConfigurationError(
                    f"{path!r} is no path on the application's own origin: begin it with a slash, in ASCII"
                )
        for folder in (self.templates, self.locale):
            if folder is not None and not Path(folder).is_dir():
                raise ConfigurationError(f"there is no folder {folder}")
