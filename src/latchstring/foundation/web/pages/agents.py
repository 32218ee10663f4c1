"""A browser's and a system's name, read from its `User-Agent` by a library that is kept up to date."""

from latchstring.foundation.web.pages.translations import Translations, msgid

_PLAIN = {"Mobile Safari": "Safari", "Mac OS X": "macOS", "Chrome Mobile": "Chrome", "Firefox Mobile": "Firefox"}


def named(user_agent: str | None, translate: Translations) -> str:
    """Return `Firefox on Linux`, or as much of it as can be told. Its first call takes a tenth of a second."""
    from ua_parser import parse_os, parse_user_agent  # noqa: PLC0415 -- 30 ms for who never lists a session

    browser = parse_user_agent(user_agent) if user_agent else None
    system = parse_os(user_agent) if user_agent else None
    browser_name = _PLAIN.get(browser.family, browser.family) if browser else None
    system_name = _PLAIN.get(system.family, system.family) if system else None
    if browser_name and system_name:
        return translate(msgid("%(browser)s on %(system)s"), browser=browser_name, system=system_name)
    return browser_name or system_name or translate(msgid("Unknown client"))
