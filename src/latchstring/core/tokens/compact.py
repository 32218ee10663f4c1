"""The strict parser: the text of a token to its header, claims and signature, or a refusal. Pure.

JOSE libraries accept more than RFC 7519 tokens need: duplicate claim names, any `typ`, UTF-16, base64 with padding
or the wrong alphabet, compressed or unencoded payloads, keys inside the header. Each has been a vulnerability of some
library. Here a token has exactly one spelling, and everything else is refused before a library or a key sees it.
"""

import binascii
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from latchstring.core.keys.strict_json import StrictJsonError, read_json

# Bounds the work of an unauthenticated request: Authlib parsed a header of 500 MB (CVE-2025-61920).
MAX_LENGTH = 4096
# No member that names or holds a key, or changes how a token is processed: `jwk` (CVE-2018-0114), `jku` and `x5u`
# (PYSEC-2026-175), `crit` (CVE-2025-59420), `b64` (PYSEC-2026-178), `zip` (CVE-2024-28180).
HEADER_MEMBERS = frozenset({"alg", "typ", "kid"})

# Exactly three non-empty parts. `alg: none` has an empty third (RFC 7515, A.5), JWE has five (RFC 7516), and a text of
# thousands of dots made other parsers allocate without bound (CVE-2025-30204).
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
# A thumbprint (RFC 7638): SHA-256 in base64url.
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")


class MalformedTokenError(ValueError):
    """The text is not a token of the form that we issue."""


class Header(NamedTuple):
    """The header's `alg`, `typ` and `kid`, none of them checked against a key yet."""

    algorithm: str
    type: str
    key_id: str


@dataclass(frozen=True, slots=True)
class CompactToken:
    """The parts of a token. Untrusted: the signature has not been verified."""

    header: Header
    claims: dict[str, Any]
    signing_input: bytes
    """The octets that are signed (RFC 7515, section 5.1, step 5)."""
    signature: bytes


def parse(text: str) -> CompactToken:
    """Parse a token in compact serialization (RFC 7515, section 7.1), without verifying it.

    Raises:
        MalformedTokenError: longer than 4,096 characters; not three non-empty parts of canonical base64url; a header
            with other members than `alg`, `typ` and a `kid` that is a thumbprint; JSON that is not UTF-8, not an
            object, has a duplicate name, or holds fractions, NaN or lone surrogates.
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


# All tokens of one kind and key have the same header: parsing it once saves a fifth of the work. The bound keeps
# made-up headers from filling the memory.
@lru_cache(maxsize=64)
def _header(part: str) -> Header:
    header = _object(part)
    # Exact types, so that no later comparison meets a list or a number in place of a string.
    if header.keys() != HEADER_MEMBERS or not all(type(value) is str for value in header.values()):
        raise MalformedTokenError("a header with other members than alg, typ and kid")
    # A kid is attacker-controlled: here it can only be a lookup in a dictionary, never a path, a URL or SQL.
    if _KEY_ID.fullmatch(header["kid"]) is None:
        raise MalformedTokenError("a kid that is not a thumbprint")
    return Header(algorithm=header["alg"], type=header["typ"], key_id=header["kid"])


def _decoded(part: str) -> bytes:
    padded = part.encode("ascii").translate(_TO_BASE64) + b"=" * (-len(part) % 4)
    try:
        octets = binascii.a2b_base64(padded)
    except binascii.Error:
        raise MalformedTokenError("not base64url") from None
    # The last character may hold bits that decoding drops: without this a token would have several spellings
    # (RFC 4648, section 3.5).
    if binascii.b2a_base64(octets, newline=False) != padded:
        raise MalformedTokenError("base64url in a non-canonical spelling")
    return octets


def _object(part: str) -> dict[str, Any]:
    try:
        # RFC 8725, section 3.7: UTF-8 alone. `json.loads` of bytes would detect UTF-16 and UTF-32 as well.
        text = _decoded(part).decode("utf-8")
        value = read_json(text)
        # Only an escape can spell a lone surrogate, which can't be encoded: it would be a 500 wherever it is written.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedTokenError:
        raise
    except StrictJsonError as error:
        raise MalformedTokenError(str(error)) from None
    # RecursionError: deeply nested JSON must be a refusal and not a 500.
    except (ValueError, RecursionError):
        raise MalformedTokenError("not JSON in UTF-8") from None
    if type(value) is not dict:
        raise MalformedTokenError("not a JSON object")
    return value
