"""Logs of the server: one line of JSON each, or readable lines on a terminal; always on stderr.

The library logs by the standard `logging` and configures nothing. No line holds a token, a password or what a
visitor typed: paths are logged without their query, and requests that succeed are not logged at all.
"""

import logging
import sys

import structlog


def configure_logging(level: int = logging.INFO) -> None:
    """Send every logger's lines through one renderer."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        shared.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # It tells of each start and stop; ours does, in fewer words.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
