"""Logging of the server: JSON lines, or plain lines on a terminal, always on stderr.

The library itself logs by the standard `logging` and configures nothing. No line contains a token, a password or
visitors' input. Successful requests are not logged.
"""

import logging
import sys
import time


def configure_logging(level: int = logging.INFO) -> None:
    """Send the lines of all loggers through one handler."""
    # stdout is for results: `latchstring … --json` must stay parseable.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_plain_lines() if sys.stderr.isatty() else _json_lines())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # uvicorn logs each start and stop in several lines; `serve` prints the address itself.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _plain_lines() -> logging.Formatter:
    return logging.Formatter("{asctime} {levelname:<7} {name}: {message}", style="{")


def _json_lines() -> logging.Formatter:
    # python-json-logger and not structlog, which cost each worker 3.7 MB and 70 ms at its start.
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415 -- a terminal needs none of it

    formatter = JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "at", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%SZ",
    )
    # UTC, as `Z` in the format says: instances in different zones must sort together.
    formatter.converter = time.gmtime
    return formatter
