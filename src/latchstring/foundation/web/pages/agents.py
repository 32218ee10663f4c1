"""The name of a browser and its operating system, from its `User-Agent`, by a maintained library.

Rules of our own would be out of date within a year.
"""

from latchstring.foundation.web.pages.translations import Translations, msgid

_PLAIN = {"Mobile Safari": "Safari", "Mac OS X": "macOS", "Chrome Mobile": "Chrome", "Firefox Mobile": "Firefox"}


def named(user_agent: str | None, translate: Translations) -> str:
    """Return a name such as `Firefox on Linux`, or the recognized part of it. The first call takes 0.1 s."""
    # The import takes 30 ms, and only a list of sessions needs it.
    from ua_parser import parse_os, parse_user_agent  # noqa: PLC0415 -- see above

    browser = parse_user_agent(user_agent) if user_agent else None
    system = parse_os(user_agent) if user_agent else None
    browser_name = _PLAIN.get(browser.family, browser.family) if browser else None
    system_name = _PLAIN.get(system.family, system.family) if system else None
    if browser_name and system_name:
        return translate(msgid("%(browser)s on %(system)s"), browser=browser_name, system=system_name)
    return browser_name or system_name or translate(msgid("Unknown client"))
