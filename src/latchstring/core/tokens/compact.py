"""The strict front-end: the text of a token to its header, claims and signature, or a refusal. Pure.

JOSE libraries accept more than RFC 7519 tokens need: repeated claim names, any `typ`, UTF-16, base64 with padding
or the wrong alphabet, compressed or unencoded payloads, keys inside the header. Each has been somebody's advisory.
Here a token has exactly one spelling, and everything else is refused before a library or a key sees it.
"""

import binascii
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from latchstring.core.keys.strict_json import StrictJsonError, read_json

MAX_LENGTH = 4096
HEADER_MEMBERS = frozenset({"alg", "typ", "kid"})

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
# A thumbprint (RFC 7638): SHA-256 in base64url.
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")


class MalformedTokenError(ValueError):
    """The text is not a token as we issue them."""


class Header(NamedTuple):
    """What a header says, in its own words."""

    algorithm: str
    type: str
    key_id: str


@dataclass(frozen=True, slots=True)
class CompactToken:
    """A token's parts, none of them believed yet: the signature has not been looked at."""

    header: Header
    claims: dict[str, Any]
    signing_input: bytes
    """What the signature is of."""
    signature: bytes


def parse(text: str) -> CompactToken:
    """Take a token apart.

    Raises:
        MalformedTokenError: longer than 4,096 characters; not three non-empty parts of canonical base64url; a header
            with other members than `alg`, `typ` and a `kid` that is a thumbprint; JSON that is not UTF-8, not an
            object, repeats a name, or holds fractions, NaN or lone surrogates.
    """
    if len(text) > MAX_LENGTH:
        raise MalformedTokenError("too long")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise MalformedTokenError("not three base64url parts")
    header_part, claims_part, signature_part = parts.groups()
    signature = _decoded(signature_part)
    return CompactToken(
        header=_header(header_part),
        claims=_object(claims_part),
        signing_input=text[: parts.end(2)].encode("ascii"),
        signature=signature,
    )


# All tokens of a kind that a key signed have the same header: to read it once is a fifth of the work.
@lru_cache(maxsize=64)
def _header(part: str) -> Header:
    header = _object(part)
    if header.keys() != HEADER_MEMBERS or not all(type(value) is str for value in header.values()):
        raise MalformedTokenError("a header of other members than alg, typ and kid")
    if _KEY_ID.fullmatch(header["kid"]) is None:
        raise MalformedTokenError("a kid that is no thumbprint")
    return Header(algorithm=header["alg"], type=header["typ"], key_id=header["kid"])


def _decoded(part: str) -> bytes:
    padded = part.encode("ascii").translate(_TO_BASE64) + b"=" * (-len(part) % 4)
    try:
        octets = binascii.a2b_base64(padded)
    except binascii.Error:
        raise MalformedTokenError("not base64url") from None
    # Bits that are cut off by the last character would let one token have several spellings.
    if binascii.b2a_base64(octets, newline=False) != padded:
        raise MalformedTokenError("base64url of another spelling")
    return octets


def _object(part: str) -> dict[str, Any]:
    try:
        text = _decoded(part).decode("utf-8")
        value = read_json(text)
        # Only an escape can spell a lone surrogate, which can't be encoded.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedTokenError:
        raise
    except StrictJsonError as error:
        raise MalformedTokenError(str(error)) from None
    except (ValueError, RecursionError):
        raise MalformedTokenError("not JSON in UTF-8") from None
    if type(value) is not dict:
        raise MalformedTokenError("not a JSON object")
    return value
