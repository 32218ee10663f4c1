"""Logs of the server: one line of JSON each, or plain lines on a terminal; always on stderr.

The library logs by the standard `logging` and configures nothing. No line holds a token, a password or what a
visitor typed; requests that succeed are not logged at all.
"""

import logging
import sys
import time


def configure_logging(level: int = logging.INFO) -> None:
    """Send every logger's lines through one handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_plain_lines() if sys.stderr.isatty() else _json_lines())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # It tells of each start and stop; `serve` does, in fewer words.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _plain_lines() -> logging.Formatter:
    return logging.Formatter("{asctime} {levelname:<7} {name}: {message}", style="{")


def _json_lines() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415 -- a terminal needs none of it

    formatter = JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "at", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%SZ",
    )
    formatter.converter = time.gmtime
    return formatter
