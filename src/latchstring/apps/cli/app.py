"""The Typer application, with all commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from latchstring.apps.cli.feed_tokens import feed_tokens
from latchstring.apps.cli.inspect import config, doctor, openapi
from latchstring.apps.cli.keys import keys
from latchstring.apps.cli.restored import restored
from latchstring.apps.cli.serve import migrate, serve
from latchstring.apps.cli.sessions import sessions
from latchstring.apps.cli.target import application
from latchstring.apps.cli.users import users

app = typer.Typer(
    no_args_is_help=True,
    # Typer's own tracebacks show local variables, and with them passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, migrate, restored, doctor, openapi, config):
    app.command()(command)
app.add_typer(users, name="users")
app.add_typer(sessions, name="sessions")
app.add_typer(keys, name="keys")
app.add_typer(feed_tokens, name="feed-token")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- typer's way to call an option
    if wanted:
        print(version("latchstring"))
        raise typer.Exit


@app.callback()
def latchstring(
    app_name: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:NAME",
            help="Work on the users, sessions and keys of this FastAPI application; by default on the environment's.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sign-in for FastAPI that is right under concurrency."""
    application.set(app_name)
