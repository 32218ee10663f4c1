"""The strict front-end, fuzzed: texts near a token, and tokens changed at random, for as long as is asked.

    .venv/bin/python drills/fuzz.py [--minutes N] [--seed N]

Texts come in three kinds: genuine tokens of both kinds under every algorithm with bytes changed, moved, repeated or cut
out; two genuine tokens put together from pieces; and headers and claims out of a grammar of what is nearly right, in
encodings that are nearly right, some of them honestly signed. Each is read as an access and as a refresh token.

What counts: that there are two outcomes, a token or a refusal, and never another exception; that what is accepted says
what its issuer wrote or what the grammar signed honestly, and that PyJWT accepts it; and the processor time of each.
"""

import argparse
import contextlib
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import jwt
import psutil
from jwt.algorithms import OKPAlgorithm

from drills.ground import Figure, Says, percentile
from latchstring.core.caller import Caller
from latchstring.core.keys.key_set import KeySet, key_set_from_pems
from latchstring.core.keys.settings import Algorithm
from latchstring.core.tokens.compact import MalformedTokenError, parse
from latchstring.core.tokens.rules import Issuer, Kind, RefreshClaims, access_claims, refresh_claims
from latchstring.core.tokens.tokens import signed
from latchstring.core.tokens.verification import TokenReader, UnknownKeyError
from tests.support.forge import KIND_FOR, b64url, compact, new_key, private_pem, sign_with
from tests.support.issued import a_caller, bearer_of

NOW = 1_800_000_000
ISSUER = Issuer(name="https://id.example.com", audience="https://api.example.com")
BOUND_MILLISECONDS = 1.0
GROWTH_BOUND_MIB = 16.0
RECENT = 200_000
"""Of so many texts at the end the times are kept."""
ALPHABET = 'ABCXYZabcxyz0189-_.=+/ \n\0%"{}:,\u00e9'
_SECOND = jwt.PyJWT()
_SECOND._jws.register_algorithm("Ed25519", OKPAlgorithm())  # noqa: SLF001 -- it has no other door for RFC 9864's name

Random = random.Random


@dataclass(frozen=True)
class FuzzedIssuer:
    """A key of one algorithm, and what it issued."""

    algorithm: Algorithm
    keys: KeySet
    claims: Mapping[Kind, Mapping[str, Any]]
    genuine: Mapping[str, Kind]

    @classmethod
    def of(cls, algorithm: Algorithm) -> "FuzzedIssuer":
        """Make one."""
        pem = private_pem(new_key(KIND_FOR[algorithm])).decode()
        keys = key_set_from_pems(algorithm=algorithm, private=pem, public=None, extra_public=None)
        caller = a_caller(now=NOW, epoch=1, roles=("admin",))
        bearer = bearer_of(caller)
        claims = {
            Kind.ACCESS: access_claims(caller, generation=1, issuer=ISSUER),
            Kind.REFRESH: refresh_claims(bearer, issuer=ISSUER),
        }
        genuine = {signed(keys, kind, {**said}): kind for kind, said in claims.items()}
        return cls(algorithm=algorithm, keys=keys, claims=claims, genuine=genuine)

    def sign(self, header: Mapping[str, object], claims: Mapping[str, object] | bytes) -> str:
        """Return a token that says anything at all, honestly signed."""
        key = new_key(KIND_FOR[self.algorithm])
        return compact(header, claims, sign_with(key, self.algorithm.value))


@dataclass
class Seen:
    """What became of the texts."""

    texts: int = 0
    accepted: int = 0
    wrong: list[str] = field(default_factory=list)
    """What came out as it never may."""
    milliseconds: list[float] = field(default_factory=list)


def changed(chance: Random, issuers: list[FuzzedIssuer]) -> tuple[FuzzedIssuer, str]:
    """Return a genuine token with a few characters changed."""
    issuer = chance.choice(issuers)
    text = list(chance.choice([*issuer.genuine]))
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(text))
        match chance.randrange(6):
            case 0:
                text[at] = chance.choice(ALPHABET)
            case 1:
                text.insert(at, chance.choice(ALPHABET))
            case 2:
                del text[at]
            case 3:
                text[at:at] = text[at : at + chance.randrange(40)]
            case 4:
                del text[at : at + chance.randrange(40)]
            case _:
                other = chance.randrange(len(text))
                text[at], text[other] = text[other], text[at]
        text = text or ["."]
    return issuer, "".join(text)


def spliced(chance: Random, issuers: list[FuzzedIssuer]) -> tuple[FuzzedIssuer, str]:
    """Return pieces of two genuine tokens, cut at dots or anywhere."""
    one, two = chance.choice(issuers), chance.choice(issuers)
    first, second = chance.choice([*one.genuine]), chance.choice([*two.genuine])
    if chance.random() < 0.5:
        parts = [chance.choice(pair) for pair in zip(first.split("."), second.split("."), strict=True)]
        return chance.choice([one, two]), ".".join(parts)
    return one, first[: chance.randrange(len(first) + 1)] + second[chance.randrange(len(second) + 1) :]


def grown(chance: Random, issuers: list[FuzzedIssuer]) -> tuple[FuzzedIssuer, str]:
    """Return a token out of a grammar: nearly the right members, with nearly the right values."""
    issuer = chance.choice(issuers)
    kind = chance.choice([*Kind])
    header: dict[str, object] = {
        "alg": issuer.algorithm.value,
        "typ": kind.header_type,
        "kid": issuer.keys.signing.kid,
    }
    claims: dict[str, object] = dict(issuer.claims[kind])
    for said in (header, claims):
        for _ in range(chance.choice([0, 0, 1, 1, 2])):
            name = chance.choice([*said, *chance.choice([("crit", "jwk"), ("roles", "gen"), ("", "\u0000")])])
            if chance.random() < 0.3:
                said.pop(name, None)
            else:
                said[name] = _value(chance, depth=0)
    raw = json.dumps(claims, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.3:
        raw = _damaged(chance, raw)
    if chance.random() < 0.5:
        return issuer, issuer.sign(header, raw)
    signature = chance.choice([*issuer.genuine]).rpartition(".")[2]
    return issuer, f"{b64url(json.dumps(header).encode())}.{b64url(raw)}.{signature}"


def _value(chance: Random, *, depth: int) -> object:
    simple: list[object] = [
        *(None, True, False, 0, 1, -1, NOW, NOW + 900, 2**53, 2**63, 10**30, 0.5, 1e300),
        *("", "access", "refresh", "at+jwt", "rt+jwt", "none", "HS256", "RS256", "ES256", ISSUER.name),
        *("\ud800", "\u0000", "a" * chance.choice([1, 100, 3000]), "../../etc/passwd", "' OR 1=1 --"),
    ]
    if depth < 4 and chance.random() < 0.2:
        inner = [_value(chance, depth=depth + 1) for _ in range(chance.randrange(4))]
        return inner if chance.random() < 0.5 else {str(number): value for number, value in enumerate(inner)}
    return chance.choice(simple)


def _damaged(chance: Random, raw: bytes) -> bytes:
    match chance.randrange(6):
        case 0:
            return raw[:-1] + b"," + raw[1:]
        case 1:
            return raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
        case 2:
            return b"\xef\xbb\xbf" + raw
        case 3:
            return b"[" * chance.choice([10, 1000, 2500]) + raw
        case 4:
            return bytes(chance.randrange(256) for _ in range(chance.randrange(1, 200)))
        case _:
            return raw.replace(b":", b": ", 1)


KINDS: tuple[Callable[[Random, list[FuzzedIssuer]], tuple[FuzzedIssuer, str]], ...] = (changed, spliced, grown)


def fuzz(*, seconds: float, seed: int) -> list[Figure]:
    """Return what was seen in so many seconds."""
    chance = Random(seed)
    issuers = [FuzzedIssuer.of(algorithm) for algorithm in Algorithm]
    readers = {issuer.algorithm: TokenReader(ISSUER) for issuer in issuers}
    seen = Seen()
    _some(chance, issuers, readers, seen, times=2000)
    seen.milliseconds.clear()
    # In the first half the readers fill what they may remember.
    before = 0
    for _ in range(2):
        gc.collect()
        before = psutil.Process().memory_info().rss
        until = time.monotonic() + seconds / 2
        while time.monotonic() < until:
            _some(chance, issuers, readers, seen, times=500)
            del seen.milliseconds[:-RECENT]
    gc.collect()
    grown_mib = (psutil.Process().memory_info().rss - before) / 2**20
    return [
        Figure(
            "a token or a refusal, and nothing else; what is accepted PyJWT accepts, and it was said by the issuer",
            f"{len(seen.wrong)} of {seen.texts} otherwise, {seen.accepted} accepted" + "".join(seen.wrong[:1]),
            is_kept=not seen.wrong and seen.accepted > 0,
        ),
        Figure(
            f"each is read, as both kinds, in less than {BOUND_MILLISECONDS:.0f} ms of processor time",
            f"{max(seen.milliseconds):.3f} ms at most of the last {len(seen.milliseconds)}, "
            f"p99.9 {percentile(seen.milliseconds, 0.999):.3f} ms",
            is_kept=max(seen.milliseconds) < BOUND_MILLISECONDS,
            says=Says.SPEED,
        ),
        Figure(
            f"memory grows by less than {GROWTH_BOUND_MIB:.0f} MiB in the second half",
            f"{grown_mib:.1f} MiB in {seconds / 2:.0f} s",
            is_kept=grown_mib < GROWTH_BOUND_MIB,
        ),
    ]


def _some(
    chance: Random, issuers: list[FuzzedIssuer], readers: Mapping[Algorithm, TokenReader], seen: Seen, *, times: int
) -> None:
    texts = [chance.choice(KINDS)(chance, issuers) for _ in range(times)]
    gc.disable()
    try:
        for issuer, text in texts:
            _one(issuer, text, readers[issuer.algorithm], seen)
    finally:
        gc.enable()


def _one(issuer: FuzzedIssuer, text: str, reader: TokenReader, seen: Seen) -> None:
    seen.texts += 1
    try:
        caller, bearer, milliseconds = _read(issuer, text, reader)
        # What took long is tried again, by a reader that has not seen it: an interruption does not come back.
        for _ in range(2):
            if milliseconds > BOUND_MILLISECONDS / 2:
                milliseconds = min(milliseconds, _read(issuer, text, TokenReader(ISSUER))[2])
    except Exception as error:  # noqa: BLE001 -- what is looked for
        seen.wrong.append(f"; {type(error).__name__} of {text!r}")
        return
    seen.milliseconds.append(milliseconds)
    if caller is None and bearer is None:
        return
    seen.accepted += 1
    token = parse(text)
    read = _by_pyjwt(issuer, text)
    if read is None or read != token.claims or (caller is not None and bearer is not None):
        seen.wrong.append(f"; accepted {text!r}")


def _read(issuer: FuzzedIssuer, text: str, reader: TokenReader) -> tuple[Caller | None, RefreshClaims | None, float]:
    keys = issuer.keys.verifying
    caller = bearer = None
    began = time.process_time()
    with contextlib.suppress(UnknownKeyError):
        caller = reader.access(text, keys, now=NOW)
        bearer = reader.refresh(text, keys, now=NOW)
    return caller, bearer, (time.process_time() - began) * 1000


def _by_pyjwt(issuer: FuzzedIssuer, text: str) -> dict[str, Any] | None:
    key: Any = new_key(KIND_FOR[issuer.algorithm]).public_key()
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    try:
        return _SECOND.decode(
            text, key, [issuer.algorithm.value], audience=ISSUER.audience, issuer=ISSUER.name, options=options
        )
    except (jwt.InvalidTokenError, MalformedTokenError):
        return None


def main() -> int:
    """Fuzz from the command line; return the exit code: 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="drills/fuzz.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="to repeat a run")
    given = parser.parse_args()
    print("| promise | seen | verdict |\n| --- | --- | --- |")
    figures = fuzz(seconds=given.minutes * 60, seed=given.seed)
    for figure in figures:
        print(figure.line())
    print(f"| *{given.minutes:g} minutes, seed {given.seed}* | | |")
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
