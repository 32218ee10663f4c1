"""The client address of a request, also behind proxies."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from latchstring.foundation.web.cookies import RawHeaders


def client_address(
    peer: str | None, headers: RawHeaders, *, trusted_proxies: Sequence[IPv4Network | IPv6Network]
) -> str | None:
    """Return the address of the nearest machine that is not a trusted proxy; None if the peer's is unknown.

    The client may send any `X-Forwarded-For`; each proxy appends the address it saw. So the entries are read from the
    right, and only while the machine that wrote an entry is trusted.
    """
    current = _parsed(peer)
    if current is None:
        return None
    # By default no proxy is trusted: with a header that the client writes, each attempt would be from another address,
    # and no limit would hold (CVE-2023-41338, allauth 65.14.2).
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
    # `::ffff:192.0.2.1` on a dual-stack socket: as IPv6 all of IPv4 would be one /64, and share one limit.
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed
