"""A request's body: bounded in size and time, then bytes to JSON or to the fields of a form, strictly.

The framework's own reader takes any size, lets NaN and lone surrogates through to a 500, and keeps the last of two
equal keys, so that what a proxy checked need not be what we read.
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

MAX_BYTES = 64 * 1024
TIMEOUT_SECONDS = 10.0

_MAX_DIGITS = 18
_MAX_FORM_FIELDS = 32
_Value = TypeVar("_Value")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def refuse_announced_size(request: Request) -> None:
    """Refuse a body that says itself that it is too large, before a byte of it is read."""
    for name, announced in request.scope["headers"]:
        if name == b"content-length" and (not announced.isdigit() or int(announced[:_MAX_DIGITS]) > MAX_BYTES):
            raise ProblemError(Code.BODY_TOO_LARGE)


async def read_json(request: Request) -> object:
    """Return the body's JSON value.

    Raises:
        ProblemError: 400 no or broken JSON, 408 not sent in time, 413 too large, 415 not JSON by its content type,
            422 JSON that no honest client writes (repeated keys, NaN, lone surrogates, NUL).
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
    """Return the fields of an `application/x-www-form-urlencoded` body; an empty one is none (RFC 6749, section 3.2).

    Raises:
        ProblemError: 408 not sent in time, 413 too large, 415 another content type, 422 a field that is repeated, is
            no UTF-8 or holds NUL, or more fields than any form has.
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
    # A form of another site can send text/plain that happens to be JSON, without a preflight (CVE-2021-32677).
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
        if key in result:
            raise _DishonestBodyError("a key is given twice")
        _refuse_unstorable(key)
        _refuse_unstorable(value)
        result[key] = value
    return result


def _refuse_unstorable(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise _DishonestBodyError("NUL characters are not allowed")
        if _LONE_SURROGATE.search(value):
            raise _DishonestBodyError("lone surrogates are not allowed")
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item)


def _no_constant(_name: str) -> NoReturn:
    raise _DishonestBodyError("NaN and Infinity are not allowed")
