"""Settings of the public URL, the front end and the proxies."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

DEVELOPMENT_CLIENT_ORIGIN = "http://localhost:3000"
# Names in other alphabets must be written as browsers send them in `Origin`: xn--….
_HOST = re.compile(r"[a-z0-9.:_-]+")


def _bare_origin(value: object) -> object:
    """Accept only `scheme://host[:port]`, and return it as a browser sends it in `Origin`."""
    if not isinstance(value, str):
        return value
    parts = urlsplit(value.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or port == -1
        or parts.username is not None
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
        or not _HOST.fullmatch(parts.hostname)
    ):
        raise ValueError("must be an origin such as https://example.com, with no path")
    # Compared as a whole string later, never by prefix or suffix: `https://example.com.attacker.net` must not match.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in {None, default_port} else f":{port}")


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be IP addresses and networks such as 10.0.0.0/8, separated by commas") from None


def _urls(value: object) -> object:
    if not isinstance(value, str):
        return value
    urls = tuple(part.strip() for part in value.split(",") if part.strip())
    for url in urls:
        # Whole URLs, compared exactly: prefixes and patterns are how open redirects begin (CVE-2021-32618).
        parts = urlsplit(url)
        is_whole = (
            parts.scheme in {"http", "https"} and parts.hostname and parts.username is None and not parts.fragment
        )
        if not is_whole or not url.isascii():
            raise ValueError("must be whole URLs such as https://app.example.com/welcome, separated by commas")
    return urls


Urls = Annotated[tuple[str, ...], BeforeValidator(_urls)]
Origin = Annotated[str, BeforeValidator(_bare_origin)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]


class WebSettings(BaseModel):
    """The public URL, and what is trusted around it."""

    model_config = ConfigDict(frozen=True)

    public_url: Origin | None = None
    """The URL that visitors use, e.g. `https://auth.example.com`. With https, cookies are Secure and `__Host-`."""
    client_origin: Origin | None = None
    """The front end's origin, allowed to call with credentials. By default `http://localhost:3000` if there is no
    public URL, and none if there is one."""
    trusted_proxies: Networks = ()
    """The proxies whose `X-Forwarded-For` is trusted, as IP addresses and networks; none by default."""

    return_urls: Urls = ()
    """URLs to which a page may redirect (`next`), besides paths on our own origin. Compared exactly."""

    @property
    def is_https(self) -> bool:
        """Whether the public URL is https."""
        # Never from the request: a proxy or a client could say http, and cookies would lose `Secure` and `__Host-`.
        return self.public_url is not None and self.public_url.startswith("https://")

    @property
    def allowed_client_origin(self) -> str | None:
        """The one other origin that may call with credentials."""
        # One origin or none: a wildcard with credentials gives every site the session (CVE-2024-25124).
        if self.client_origin is None and self.public_url is None:
            return DEVELOPMENT_CLIENT_ORIGIN
        return self.client_origin

    @model_validator(mode="after")
    def _refuse_plain_http(self) -> Self:
        if self.public_url and not self.is_https and not is_loopback(urlsplit(self.public_url).hostname or ""):
            raise ValueError("LATCHSTRING_PUBLIC_URL must be https, because its cookies would travel in the clear")
        if self.is_https and self.client_origin and not self.client_origin.startswith("https://"):
            raise ValueError("CLIENT_ORIGIN must be https when LATCHSTRING_PUBLIC_URL is")
        return self


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine only: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
