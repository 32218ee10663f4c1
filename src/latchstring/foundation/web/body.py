"""Reads a request's body with bounded size and time, and parses JSON or a form strictly.

The framework's own reader accepts any size, lets NaN and lone surrogates through to a 500, and keeps the last of two
equal keys, so that a proxy may check another value than the one we read.
"""

import asyncio
import json
import re
from email.message import Message
from typing import NoReturn, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from latchstring.errors import Code
from latchstring.foundation.web.problem import ProblemError

# Bounds for requests that nobody has authenticated yet: form parsers that ignored theirs could be kept busy by one
# request (CVE-2024-47874, CVE-2024-53981).
MAX_BYTES = 64 * 1024
TIMEOUT_SECONDS = 10.0

_MAX_DIGITS = 18
_MAX_FORM_FIELDS = 32
_Value = TypeVar("_Value")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def refuse_announced_size(request: Request) -> None:
    """Refuse a body whose `Content-Length` is too large, before reading it.

    Raises:
        ProblemError: 413 if it announces more than 64 KiB, or no number.
    """
    # Python refuses to parse more than 4,300 digits, with an exception: a prefix is enough to compare.
    for name, announced in request.scope["headers"]:
        if name == b"content-length" and (not announced.isdigit() or int(announced[:_MAX_DIGITS]) > MAX_BYTES):
            raise ProblemError(Code.BODY_TOO_LARGE)


async def read_json(request: Request) -> object:
    """Return the body's JSON value.

    Raises:
        ProblemError: 400 no or malformed JSON, 408 not sent in time, 413 too large, 415 another content type,
            422 JSON with duplicate keys, NaN, Infinity, lone surrogates or NUL.
    """
    body = await _read_bounded(request)
    if not body:
        raise ProblemError(Code.MALFORMED_JSON)
    if not _is_of_type("application/json", request.headers.getlist("content-type")):
        raise ProblemError(Code.UNSUPPORTED_MEDIA_TYPE)
    try:
        text = body.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except _DishonestBodyError as error:
        raise ProblemError(Code.VALIDATION_FAILED, errors=[{"pointer": "#", "detail": str(error)}]) from None
    except (ValueError, RecursionError):
        raise ProblemError(Code.MALFORMED_JSON) from None


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of an `application/x-www-form-urlencoded` body, without empty ones (RFC 6749, section 3.2).

    Raises:
        ProblemError: 408 not sent in time, 413 too large, 415 another content type, 422 a duplicate field, one that
            is not UTF-8 or holds NUL, or more than 32 fields.
    """
    body = await _read_bounded(request)
    if not _is_of_type("application/x-www-form-urlencoded", request.headers.getlist("content-type")):
        raise ProblemError(Code.UNSUPPORTED_MEDIA_TYPE)
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS
        )
        return {name: value for name, value in _unique_keys(fields).items() if value}
    except _DishonestBodyError as error:
        raise ProblemError(Code.VALIDATION_FAILED, errors=[{"pointer": "#", "detail": str(error)}]) from None
    except ValueError:
        detail = "must be a form: ASCII, percent-encoded UTF-8, a few fields"
        raise ProblemError(Code.VALIDATION_FAILED, errors=[{"pointer": "#", "detail": detail}]) from None


async def _read_bounded(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            # Counted as it arrives: `Content-Length` may be absent or wrong.
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ProblemError(Code.BODY_TOO_LARGE)
    except TimeoutError:
        raise ProblemError(Code.BODY_TIMEOUT) from None
    except ClientDisconnect:
        raise ProblemError(Code.MALFORMED_JSON) from None
    return bytes(body)


def _is_of_type(expected: str, content_types: list[str]) -> bool:
    # A form on another site can send JSON as text/plain, with cookies and without a preflight (CVE-2021-32677).
    if len(content_types) != 1:
        return False
    message = Message()
    message["content-type"] = content_types[0]
    charset = message.get_param("charset", "utf-8")
    return message.get_content_type() == expected and str(charset).lower() in {"utf-8", "utf8"}


class _DishonestBodyError(Exception):
    pass


def _unique_keys(pairs: list[tuple[str, _Value]]) -> dict[str, _Value]:
    result: dict[str, _Value] = {}
    for key, value in pairs:
        # Parsers disagree about which duplicate counts: a proxy could check one value, and we would use the other.
        if key in result:
            raise _DishonestBodyError("a key is given twice")
        _refuse_unstorable(key)
        _refuse_unstorable(value)
        result[key] = value
    return result


def _refuse_unstorable(value: object) -> None:
    if isinstance(value, str):
        # PostgreSQL refuses NUL in text, which was a 500 at sign-in elsewhere; C libraries end the text there.
        if "\0" in value:
            raise _DishonestBodyError("NUL characters are not allowed")
        if _LONE_SURROGATE.search(value):
            raise _DishonestBodyError("lone surrogates are not allowed")
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item)


def _no_constant(_name: str) -> NoReturn:
    raise _DishonestBodyError("NaN and Infinity are not allowed")
