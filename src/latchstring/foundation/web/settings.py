"""Where the service stands on the web."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

DEVELOPMENT_CLIENT_ORIGIN = "http://localhost:3000"


# Names in other alphabets are written as browsers write them in `Origin`: xn--….
_HOST = re.compile(r"[a-z0-9.:_-]+")


def _bare_origin(value: object) -> object:
    """Accept `scheme://host[:port]` and nothing more; return it as a browser would write it in `Origin`."""
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
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in {None, default_port} else f":{port}")


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be addresses and networks, separated by commas") from None


def _addresses(value: object) -> object:
    if not isinstance(value, str):
        return value
    addresses = tuple(part.strip() for part in value.split(",") if part.strip())
    for address in addresses:
        parts = urlsplit(address)
        is_whole = (
            parts.scheme in {"http", "https"} and parts.hostname and parts.username is None and not parts.fragment
        )
        if not is_whole or not address.isascii():
            raise ValueError("must be whole addresses such as https://app.example.com/welcome, separated by commas")
    return addresses


Addresses = Annotated[tuple[str, ...], BeforeValidator(_addresses)]
Origin = Annotated[str, BeforeValidator(_bare_origin)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]


class WebSettings(BaseModel):
    """What browsers see of the service."""

    model_config = ConfigDict(frozen=True)

    public_url: Origin | None = None
    """The address people type, e.g. `https://auth.example.com`. With https, cookies are Secure and `__Host-`."""
    client_origin: Origin | None = None
    """The browser front end's origin, allowed to call with credentials. Unset: `http://localhost:3000` while no
    public URL is set, none afterwards."""
    trusted_proxies: Networks = ()
    """Whose `X-Forwarded-For` is believed; nobody's by default."""

    return_urls: Addresses = ()
    """Where a page may send a visitor on to (`next`), besides paths on our own origin: whole addresses, exactly."""

    @property
    def is_https(self) -> bool:
        """Whether visitors come by https: what the public URL says, never what a request claims."""
        return self.public_url is not None and self.public_url.startswith("https://")

    @property
    def allowed_client_origin(self) -> str | None:
        """The one foreign origin that may call with credentials."""
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
    """Tell whether `host` is this machine only: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
