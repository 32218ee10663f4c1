"""The visitor's address, where proxies stand in front."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

RawHeaders = Iterable[tuple[bytes, bytes]]


def client_address(
    peer: str | None, headers: RawHeaders, *, trusted_proxies: Sequence[IPv4Network | IPv6Network]
) -> str | None:
    """Return the address of the nearest machine that is not one of our proxies.

    `X-Forwarded-For` is written from the left by whoever likes to; each proxy appends the one it saw. So it is read
    from the right, and only as long as the one who wrote an entry is trusted.
    """
    current = _parsed(peer)
    if current is None:
        return None
    if trusted_proxies:
        line = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        for entry in reversed(line.decode("latin-1").split(",")):
            if not any(current in network for network in trusted_proxies):
                break
            nearer = _parsed(entry.strip())
            if nearer is None:
                break
            current = nearer
    return str(current)


def _parsed(address: str | None) -> IPv4Address | IPv6Address | None:
    if address is None:
        return None
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed
