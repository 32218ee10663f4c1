"""Our cookies, read from the raw header by exact name.

The framework's reader keeps the last of two cookies of one name and strips bytes off a name until it matches, so
that a sibling subdomain can plant a cookie which passes for a `__Host-` one. This one compares bytes, and two
cookies of one name are reported as such.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.responses import Response

RawHeaders = Iterable[tuple[bytes, bytes]]


def read_cookies(headers: RawHeaders, name: bytes) -> list[str]:
    """Return every value sent under exactly `name`, in the order they came."""
    values = []
    for header, line in headers:
        if header == b"cookie" and name in line:
            for pair in line.split(b";"):
                key, equals, value = pair.strip(b" \t").partition(b"=")
                if equals and key == name:
                    values.append(value.decode("latin-1"))
    return values


def replaced_cookies(headers: RawHeaders, values: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the headers as a browser would send them that has these cookies now."""
    names = {name.encode() for name in values}
    pairs = [
        pair.strip(b" \t") for name, line in headers if name == b"cookie" for pair in line.split(b";")
    ]  # fmt: skip
    kept = [pair for pair in pairs if pair.partition(b"=")[0] not in names]
    line = b"; ".join([*kept, *(f"{name}={value}".encode() for name, value in values.items())])
    return [*((name, value) for name, value in headers if name != b"cookie"), (b"cookie", line)]


@dataclass(frozen=True, slots=True)
class CookieJar:
    """The names in force, and how they are set: HttpOnly, SameSite=Lax, Path=/; on https Secure and `__Host-`."""

    access_name: str
    refresh_name: str
    secure: bool

    @classmethod
    def for_transport(cls, *, https: bool) -> "CookieJar":
        """Return the jar for https, or for http on this machine only."""
        prefix = "__Host-" if https else ""
        return cls(access_name=f"{prefix}access_token", refresh_name=f"{prefix}refresh_token", secure=https)

    @property
    def names(self) -> tuple[str, str]:
        """Both names."""
        return self.access_name, self.refresh_name

    def set(self, response: Response, *, access: tuple[str, int], refresh: tuple[str, int]) -> None:
        """Put both tokens, each with its life in seconds, on `response`."""
        for name, (value, max_age) in ((self.access_name, access), (self.refresh_name, refresh)):
            response.set_cookie(
                name, value, max_age=max_age, path="/", httponly=True, samesite="lax", secure=self.secure
            )

    def clear(self, response: Response) -> None:
        """Make the browser forget both."""
        for name in self.names:
            response.delete_cookie(name, path="/", httponly=True, samesite="lax", secure=self.secure)
