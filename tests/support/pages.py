"""Pages over HTTP: a browser that goes where it is sent, and what a page says."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from tests.support.service import PASSWORD, Service

NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "same-origin",
}
SIGN_UP = {"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "password": PASSWORD}


def title(answer: httpx2.Response) -> str:
    """Returns what stands in the title of the window."""
    found = re.search(r"<title>(.*?)</title>", answer.text, re.DOTALL)
    assert found is not None, answer.text
    return html.unescape(found[1]).strip()


def text(answer: httpx2.Response) -> str:
    """Returns what stands on the page, without its tags."""
    body = re.sub(r"(?s)<head>.*?</head>|<[^>]*>", " ", answer.text)
    return " ".join(html.unescape(body).split())


def field(answer: httpx2.Response, name: str) -> dict[str, str]:
    """Returns the attributes of a form's field."""
    found = [match for match in re.findall(r"<input\b([^>]*)>", answer.text) if f' name="{name}"' in f" {match}"]
    assert len(found) == 1, (name, found)
    attributes: dict[str, str] = {}
    for key, value in re.findall(r'([\w-]+)(?:="([^"]*)")?', found[0]):
        attributes[key] = html.unescape(value)
    return attributes


def hidden(answer: httpx2.Response, action: str) -> dict[str, str]:
    """Returns what the form that is sent to `action` carries unseen."""
    (form,) = re.findall(rf'(?s)<form\b[^>]*action="{re.escape(action)}".*?</form>', answer.text)
    found: dict[str, str] = {}
    for attributes in re.findall(r'<input\b([^>]*type="hidden"[^>]*)>', form):
        name, value = (re.search(rf'\b{key}="([^"]*)"', attributes) for key in ("name", "value"))
        assert name
        found[html.unescape(name[1])] = html.unescape(value[1]) if value else ""
    return found


@dataclass(frozen=True)
class Visitor:
    """A browser, as pages see it."""

    browser: httpx2.AsyncClient

    async def goes(self, path: str, **headers: str) -> httpx2.Response:
        """Goes to an address, and on to wherever that leads."""
        return await self.browser.get(path, headers=NAVIGATION | headers, follow_redirects=True)

    async def asks(self, path: str, **headers: str) -> httpx2.Response:
        """Goes to an address, and no further."""
        return await self.browser.get(path, headers=NAVIGATION | headers)

    async def sends(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> httpx2.Response:
        """Sends a form, and goes no further."""
        return await self.browser.post(path, content=_form(fields), headers=_POST | headers)

    async def sends_and_goes(self, path: str, fields: Mapping[str, str] | None = None) -> httpx2.Response:
        """Sends a form, and goes on to wherever that leads."""
        return await self.browser.post(path, content=_form(fields), headers=_POST, follow_redirects=True)


_POST = NAVIGATION | {"Content-Type": "application/x-www-form-urlencoded"}


def _form(fields: Mapping[str, str] | None) -> bytes:
    return str(httpx2.QueryParams(dict(fields or {}))).encode()


def visitor(service: Service) -> Visitor:
    """Returns somebody who has not been here."""
    return Visitor(service.browser())


async def signed_up(service: Service, **changes: str) -> Visitor:
    """Returns somebody who has just signed up on the page."""
    came = visitor(service)
    answer = await came.sends("/sign-up", SIGN_UP | changes)
    assert answer.status_code == 303, answer.text
    return came
