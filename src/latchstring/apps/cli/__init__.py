"""The command line: `latchstring`.

    app.py       the commands, put together
    serve.py     serve, migrate
    users.py     users create | list | show | disable | enable | grant | withdraw | delete
    sessions.py  sessions list | revoke
    keys.py      keys list | rotate | retire
    feed_tokens.py  feed-token create | list | revoke
    inspect.py   doctor, openapi, config
    application.py  an application that a command names
    output.py    results on stdout, words on stderr, exit codes

This module stays light: each worker process imports it once more, as the script that it was started from.
"""

import sys


def main() -> None:
    """Run the command given; exit with 0 done, 1 failed, 2 usage, 3 configuration, 4 not found, 5 conflict."""
    from latchstring.apps.cli.app import app  # noqa: PLC0415 -- workers import this module and need no command line
    from latchstring.apps.cli.output import Exit, say  # noqa: PLC0415 -- nor what it prints with
    from latchstring.errors import ConfigurationError, UnavailableError  # noqa: PLC0415 -- nor its exit codes

    try:
        app()
    except ConfigurationError as error:
        say(f"error: {error}")
        sys.exit(Exit.CONFIGURATION)
    except UnavailableError as error:
        say(f"error: {error}")
        sys.exit(Exit.FAILED)
