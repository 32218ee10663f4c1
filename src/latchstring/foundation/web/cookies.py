"""Our cookies, read from the raw header by exact name.

The framework's reader keeps the last of two cookies with one name, and strips bytes off a name until it matches: a
sibling subdomain can plant a cookie that passes for a `__Host-` one ("Cookie Chaos", PortSwigger 2025). This reader
compares bytes, and returns duplicates, which the caller refuses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.responses import Response

RawHeaders = Iterable[tuple[bytes, bytes]]
"""A request's headers as ASGI has them: names in lower case, and each line that was sent."""


def read_cookies(headers: RawHeaders, name: bytes) -> list[str]:
    """Return every value sent under exactly `name`, in order."""
    values = []
    for header, line in headers:
        if header == b"cookie" and name in line:
            for pair in line.split(b";"):
                key, equals, value = pair.strip(b" \t").partition(b"=")
                if equals and key == name:
                    values.append(value.decode("latin-1"))
    return values


def replaced_cookies(headers: RawHeaders, values: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the headers that a browser with these cookies would send."""
    names = {name.encode() for name in values}
    pairs = [pair.strip(b" \t") for name, line in headers if name == b"cookie" for pair in line.split(b";")]
    kept = [pair for pair in pairs if pair.partition(b"=")[0] not in names]
    line = b"; ".join([*kept, *(f"{name}={value}".encode() for name, value in values.items())])
    return [*((name, value) for name, value in headers if name != b"cookie"), (b"cookie", line)]


@dataclass(frozen=True, slots=True)
class CookieJar:
    """The names of our cookies, set with HttpOnly, SameSite=Lax and Path=/; on https also Secure and `__Host-`."""

    access_name: str
    refresh_name: str
    secure: bool

    @classmethod
    def for_transport(cls, *, https: bool) -> "CookieJar":
        """Return the jar for https, or for http on this machine."""
        # `__Host-`: browsers take such a cookie only from this host over https (RFC 6265bis, section 4.1.3.2).
        prefix = "__Host-" if https else ""
        return cls(access_name=f"{prefix}access_token", refresh_name=f"{prefix}refresh_token", secure=https)

    @property
    def names(self) -> tuple[str, str]:
        """The names of the access and the refresh cookie."""
        return self.access_name, self.refresh_name

    def set(self, response: Response, *, access: tuple[str, int], refresh: tuple[str, int]) -> None:
        """Set both tokens, each with its lifetime in seconds, on `response`."""
        # HttpOnly, so that a script in a page (XSS) can't read them; Lax, because Strict would sign visitors out who
        # follow a link from another site.
        for name, (value, max_age) in ((self.access_name, access), (self.refresh_name, refresh)):
            response.set_cookie(
                name, value, max_age=max_age, path="/", httponly=True, samesite="lax", secure=self.secure
            )

    def clear(self, response: Response) -> None:
        """Delete both cookies in the browser."""
        for name in self.names:
            response.delete_cookie(name, path="/", httponly=True, samesite="lax", secure=self.secure)
