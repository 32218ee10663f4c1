"""The command line: `latchstring`.

    app.py          the Typer application with all commands
    serve.py        serve, migrate
    users.py        users create | list | show | disable | enable | grant | withdraw | delete
    sessions.py     sessions list | revoke
    keys.py         keys list | rotate | retire
    feed_tokens.py  feed-token create | list | revoke
    restored.py     restored
    inspect.py      doctor, openapi, config
    target.py       the Auth that a command works on, and the user it names
    application.py  import the application that a command names
    output.py       results on stdout, messages on stderr, exit codes

This module imports nothing of the package at its top: each worker process imports it again, as the script that started
it.
"""

import logging
import sys


def main() -> None:
    """Run the given command; exit with 0 done, 1 failed, 2 usage, 3 configuration, 4 not found, 5 conflict."""
    from latchstring.apps.cli.app import app  # noqa: PLC0415 -- workers import this module and need no command line
    from latchstring.apps.cli.output import Exit, say  # noqa: PLC0415 -- nor its output
    from latchstring.errors import ConfigurationError, UnavailableError  # noqa: PLC0415 -- nor its errors
    from latchstring.foundation.database.engine import DATABASE_LOGGER  # noqa: PLC0415 -- nor the database

    # The error of a command says why the database is unavailable. Without any handler, Python would print the log's
    # line of the same beside it; where logging is configured, as by `serve`, it goes there all the same.
    logging.getLogger(DATABASE_LOGGER).addHandler(logging.NullHandler())
    # Expected errors are one sentence: a traceback is long, and may show values.
    try:
        app()
    except ConfigurationError as error:
        say(f"error: {error}")
        sys.exit(Exit.CONFIGURATION)
    except UnavailableError as error:
        say(f"error: {error}")
        sys.exit(Exit.FAILED)
