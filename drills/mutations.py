"""A genuine token, changed in one way: in its header, its claims, its encoding or its signature. None of them gets in.

    .venv/bin/python drills/mutations.py

Whoever changes it has seen the token and the public key, and nothing else. Every mutation of an access token and of a
refresh token, under RS256 and ES256, is shown to the ready server in this process, as a cookie and, where its letters
allow, as a bearer token. What counts: how many are accepted, how many connections the server opens meanwhile, and how
much processor time it takes to refuse each.
"""

import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

from drills.ground import Figure, Says, main
from latchstring.apps.server import prepare
from latchstring.core.keys.ring import DatabaseRing
from latchstring.core.tokens.rules import Issuer
from latchstring.core.tokens.tokens import Tokens
from latchstring.testing import ManualClock
from tests.support.forge import Genuine, as_json, b64url, hmac_with, public_pem, raw_ecdsa, unb64url
from tests.support.service import Service, cheap_settings, running_service

BOUND_MILLISECONDS = 1.0
AT_LEAST = 120
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_COOKIE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")

Mutations = Mapping[str, str]


@dataclass(frozen=True)
class Parts:
    """A genuine token, taken apart, and another one of the same key."""

    genuine: Genuine
    other: Genuine

    @property
    def texts(self) -> tuple[str, str, str]:
        """Its three parts."""
        header, claims, signature = self.genuine.text.split(".")
        return header, claims, signature

    def with_header(self, header: object) -> str:
        """Return it under another header."""
        _, claims, signature = self.texts
        return f"{b64url(as_json(header))}.{claims}.{signature}"  # type: ignore[arg-type]

    def with_claims(self, claims: object) -> str:
        """Return it with other claims."""
        header, _, signature = self.texts
        return f"{header}.{b64url(as_json(claims))}.{signature}"  # type: ignore[arg-type]

    def with_signature(self, octets: bytes) -> str:
        """Return it with another signature."""
        header, claims, _ = self.texts
        return f"{header}.{claims}.{b64url(octets)}"


def of_header(parts: Parts) -> Mutations:
    """Return mutations of the header."""
    header = parts.genuine.header
    algorithms = [
        *("none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "RS256", "rs256", " RS256", "dir", "RSA1_5"),
    ]
    types = ("JWT", "jwt", "", "at+jwt", "rt+jwt", "AT+JWT", "application/at+jwt", "at+jwt ", "dpop+jwt")
    kid = header["kid"]
    kids = (
        parts.genuine.text[:43],
        kid[::-1],
        kid.swapcase(),
        kid[:-1],
        kid + "A",
        "A" * 43,
        "",
        "../" * 14 + "x",
        "0",
    )
    members: dict[str, object] = {
        "crit": ["exp"],
        "b64": False,
        "jku": "http://127.0.0.1:9/jwks.json",
        "x5u": "http://127.0.0.1:9/cert.pem",
        "x5c": ["MIIB"],
        "x5t": "AAAA",
        "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        "zip": "DEF",
        "enc": "A256GCM",
        "p2c": 2**31 - 1,
        "cty": "JWT",
        "url": "http://127.0.0.1:9/",
        "nonce": "1",
    }
    odd: dict[str, object] = {"null": None, "number": 1, "true": True, "list": [header["alg"]], "object": {}}
    return (
        {f"alg {alg!r}": parts.with_header(header | {"alg": alg}) for alg in algorithms if alg != header["alg"]}
        | {f"typ {typ!r}": parts.with_header(header | {"typ": typ}) for typ in types if typ != header["typ"]}
        | {f"kid {number}": parts.with_header(header | {"kid": text}) for number, text in enumerate(kids)}
        | {f"and {name}": parts.with_header(header | {name: value}) for name, value in members.items()}
        | {
            f"{name}: {kind}": parts.with_header(header | {name: value})
            for name in header
            for kind, value in odd.items()
        }
        | {f"no {name}": parts.with_header({n: v for n, v in header.items() if n != name}) for name in header}
        | {
            "empty": parts.with_header({}),
            "a list": parts.with_header([header]),
            "other order": parts.with_header(dict(reversed(header.items()))),
            "white space": parts.with_header(json.dumps(header).encode()),
            "a name twice": parts.with_header(as_json(header)[:-1] + b',"alg":"none"}'),
            "escaped": parts.with_header(as_json(header).replace(b"alg", rb"\u0061lg")),
        }
    )


def of_claims(parts: Parts) -> Mutations:
    """Return mutations of the claims, the signature being that of the genuine ones."""
    claims = parts.genuine.claims
    more: dict[str, object] = {"roles": ["admin"], "admin": True, "scope": "*", "epoch": 10**6, "act": {"sub": "x"}}
    return (
        {f"no {name}": parts.with_claims({n: v for n, v in claims.items() if n != name}) for name in claims}
        | {f"{name}: another": parts.with_claims(claims | {name: _another(value)}) for name, value in claims.items()}
        | {f"{name}: null": parts.with_claims(claims | {name: None}) for name in claims}
        | {f"and {name}": parts.with_claims(claims | {name: value}) for name, value in more.items()}
        | {
            "the other token's": parts.with_claims(parts.other.claims),
            "other order": parts.with_claims(dict(reversed(claims.items()))),
            "white space": parts.with_claims(json.dumps(claims).encode()),
            "a claim twice": parts.with_claims(as_json(claims)[:-1] + b',"sub":"x"}'),
            "empty": parts.with_claims({}),
            "a list": parts.with_claims([claims]),
            "no JSON": parts.with_claims(b"claims"),
            "UTF-16": parts.with_claims(as_json(claims).decode().encode("utf-16")),
            "BOM": parts.with_claims(b"\xef\xbb\xbf" + as_json(claims)),
        }
    )


def _another(value: object) -> object:
    match value:
        case int():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case _:
            return [value]


def of_encoding(parts: Parts) -> Mutations:
    """Return other spellings of the very same token, and texts that are nearly it."""
    text = parts.genuine.text
    header, claims, signature = parts.texts
    other_bits = {  # the last character's unused bits, where it has some
        f"last bits of the {name}": text.replace(part, part[:-1] + chr(ord(part[-1]) + 1))
        for name, part in (("header", header), ("claims", claims), ("signature", signature))
        if len(part) % 4 and part[-1] in "AQgwEIMUYcko048"
    }
    inserted = {
        f"{name} in the {place}": ".".join([*before, part[:4] + letter + part[4:], *after])
        for name, letter in (("=", "="), ("space", " "), ("newline", "\n"), ("NUL", "\0"), ("+", "+"), ("%", "%"))
        for place, before, part, after in (
            ("header", [], header, [claims, signature]),
            ("claims", [header], claims, [signature]),
            ("signature", [header, claims], signature, []),
        )
    }
    padded = {f"padding: {n}": f"{text}{'=' * n}" for n in (1, 2, 3)}
    return {
        **other_bits,
        **inserted,
        **padded,
        "padded parts": ".".join(part + "=" * (-len(part) % 4 or 4) for part in (header, claims, signature)),
        "plain base64": text.replace("-", "+").replace("_", "/") if {"-", "_"} & set(text) else f"{text}+",
        "lower case": text.lower(),
        "upper case": text.upper(),
        "swapped case": text.swapcase(),
        "reversed": text[::-1],
        "space before": f" {text}",
        "space after": f"{text} ",
        "dot before": f".{text}",
        "dot after": f"{text}.",
        "two dots": text.replace(".", "..", 1),
        "no dots": text.replace(".", ""),
        "commas": text.replace(".", ","),
        "escaped dots": text.replace(".", "%2e"),
        "quoted": f'"{text}"',
        "Bearer twice": f"Bearer {text}",
        "twice": f"{text}.{text}",
        "claims first": f"{claims}.{header}.{signature}",
        "no header": f".{claims}.{signature}",
        "no claims": f"{header}..{signature}",
        "encoded again": b64url(text.encode()),
        "hexadecimal": text.encode().hex(),
        "five parts": f"{header}.{claims}.{signature}.{claims}.{signature}",
        "JSON serialisation": json.dumps({"protected": header, "payload": claims, "signature": signature}),
        "full-width": text.replace("e", "\uff45", 1),
        "cut in the middle": text[: len(text) // 2],
        "without its beginning": text[1:],
        "long": text + "A" * 5000,
    }


def of_signature(parts: Parts) -> Mutations:
    """Return mutations of the signature."""
    genuine = unb64url(parts.texts[2])
    size = len(genuine)

    def flipped(at: int, bit: int) -> bytes:
        changed = bytearray(genuine)
        changed[at] ^= 1 << bit
        return bytes(changed)

    public = public_pem(parts.genuine.key)
    signed = ".".join(parts.texts[:2]).encode()
    mutations = {
        **{
            f"byte {at}, bit {bit}": flipped(at, bit)
            for at in (0, 1, size // 2, size - 2, size - 1)
            for bit in (0, 3, 7)
        },
        "the other token's": unb64url(parts.other.text.rpartition(".")[2]),
        "one byte": b"\0",
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "first byte gone": genuine[1:],
        "last byte gone": genuine[:-1],
        "half of it": genuine[: size // 2],
        "a zero before": b"\0" + genuine,
        "a zero after": genuine + b"\0",
        "twice": genuine * 2,
        "backwards": genuine[::-1],
        "halves exchanged": genuine[size // 2 :] + genuine[: size // 2],
        "what was signed": signed[:size],
        "HMAC of the public key": hmac_with(public)(signed),
        "HMAC-512 of the public key": hmac_with(public, "HS512")(signed),
        "HMAC of nothing": hmac_with(b"")(signed),
        "DER": b"\x30\x06\x02\x01\x01\x02\x01\x01",
        "numbers of one": raw_ecdsa(b"\x30\x06\x02\x01\x01\x02\x01\x01"),
        "numbers of nought": raw_ecdsa(b"\x30\x06\x02\x01\x00\x02\x01\x00"),
    }
    return {name: parts.with_signature(octets) for name, octets in mutations.items()}


PLACES: Mapping[str, Callable[[Parts], Mutations]] = {
    "header": of_header,
    "claims": of_claims,
    "encoding": of_encoding,
    "signature": of_signature,
}


class Connections:
    """Counts the connections that this process opens; a hook that is set stays, and is asked only while it counts."""

    def __init__(self) -> None:
        self._counting = False
        self.opened: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._counting and event in {"socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen"}:
            self.opened.append(f"{event} {arguments!r}")

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count while the block runs."""
        self._counting = True
        try:
            yield
        finally:
            self._counting = False


def drill(url: str, *, rounds: int = 1) -> list[Figure]:
    """Return what became of them; the processor time of each is the least of so many tries."""
    figures: list[Figure] = []
    for algorithm in ("RS256", "ES256"):
        figures += asyncio.run(_under(url, algorithm, tries=rounds))
    return figures


async def _under(url: str, algorithm: str, *, tries: int) -> list[Figure]:
    settings = cheap_settings(url, jwt_algorithm=algorithm)
    await prepare(settings)
    clock = ManualClock()
    clock.advance(minutes=11)  # past the time for which a key of another algorithm is published before it signs
    connections = Connections()
    counts = dict.fromkeys(PLACES, 0)
    accepted: list[str] = []
    milliseconds: list[float] = []
    async with running_service(settings, clock) as service:
        browser, other = await service.registered(f"{algorithm}-1@example.com"), None
        other = await service.registered(f"{algorithm}-2@example.com")
        with connections.counted():
            for kind in ("access_token", "refresh_token"):
                parts = Parts(Genuine.of(browser.cookies[kind], service), Genuine.of(other.cookies[kind], service))
                assert parts.genuine.header["alg"] == algorithm
                for place, mutate in PLACES.items():
                    for name, text in mutate(parts).items():
                        if text == parts.genuine.text:
                            continue
                        counts[place] += 1
                        milliseconds.append(_milliseconds(service, text, tries=tries))
                        if await _is_taken(service, text, kind=kind):
                            accepted.append(f"{kind}, {place}: {name}")
        assert (await browser.get("/api/dashboard")).status_code == 200, "the session it was made of lives on"
    number = sum(counts.values())
    words = ", ".join(f"{count} in the {place}" for place, count in counts.items())
    return [
        Figure(
            f"no mutation of a genuine token is accepted ({algorithm})",
            f"{len(accepted)} of {number} ({words})" + "".join(f"; {name}" for name in accepted),
            is_kept=not accepted and min(counts.values()) * 4 >= AT_LEAST,
        ),
        Figure(
            f"no connection is opened meanwhile ({algorithm})",
            f"{len(connections.opened)} opened" + "".join(connections.opened[:1]),
            is_kept=not connections.opened,
        ),
        Figure(
            f"each is refused in less than {BOUND_MILLISECONDS:.0f} ms of processor time ({algorithm})",
            f"{max(milliseconds):.3f} ms at most, median {statistics.median(milliseconds):.3f} ms",
            is_kept=max(milliseconds) < BOUND_MILLISECONDS,
            says=Says.SPEED,
        ),
    ]


def _milliseconds(service: Service, text: str, *, tries: int) -> float:
    ring = service.auth.parts.ring
    assert isinstance(ring, DatabaseRing)
    now = service.clock.now().timestamp()
    times: list[float] = []
    for _ in range(tries):
        tokens = Tokens(ring, Issuer(name="latchstring", audience="latchstring"))
        began = time.process_time()
        results: tuple[Any, Any] = tokens.read_access(text, now=now), tokens.read_refresh(text, now=now)
        times.append((time.process_time() - began) * 1000)
        assert results == (None, None), text
    return min(times)


async def _is_taken(service: Service, text: str, *, kind: str) -> bool:
    method, path = ("GET", "/api/dashboard") if kind == "access_token" else ("POST", "/api/auth/refresh")
    shown = []
    if _BEARER.fullmatch(text):
        shown.append({"Authorization": f"Bearer {text}"})
    if _COOKIE.fullmatch(text):
        shown.append({"Cookie": f"{kind}={text}"})
    for headers in shown:
        async with service.browser() as client:
            answer = await client.request(method, path, headers=headers)
        if answer.is_success:
            return True
        assert answer.status_code in {400, 401, 403}, (text, answer.text)
    return False


if __name__ == "__main__":
    # A database that is reached by a socket would be a connection of its own.
    sys.exit(main(drill, rounds=5, databases=("sqlite",)))
