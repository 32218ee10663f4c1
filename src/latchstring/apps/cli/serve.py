"""`serve` and `migrate`."""

import asyncio
import signal
import socket
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from latchstring import Auth, Settings
from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, say
from latchstring.apps.cli.target import chosen_auth, environment_settings, refuse_application, run
from latchstring.apps.connections import LimitedHeadProtocol
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.logs import configure_logging
from latchstring.apps.server import prepare
from latchstring.errors import ConfigurationError
from latchstring.foundation.web.settings import is_loopback
from latchstring.migrations import HEAD, schema_revision

SHUTDOWN_SECONDS = 10


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="How many processes serve.")] = 1,
    migrate: Annotated[bool, typer.Option(help="Bring the schema up to date first.")] = True,
) -> None:
    """Serve sign-in over HTTP."""
    refuse_application("serve it as you serve any FastAPI application, such as by uvicorn")
    settings = environment_settings()
    _refuse_development_in_public(settings, host)
    settings = prepare_data_directory(settings)
    asyncio.run(prepare(settings, migrate=migrate))
    config = uvicorn.Config(
        "latchstring.apps.server:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=LimitedHeadProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # The address in `X-Forwarded-For` is ours to read, and only from proxies that are named.
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    configure_logging()
    listener = _bound(host, port)
    _introduce(settings, host=host, port=listener.getsockname()[1])
    if workers > 1:
        Multiprocess(config, sockets=[listener]).run()
        return
    # uvicorn finishes what it has begun, and then raises the signal again: being asked to end is no failure.
    signal.signal(signal.SIGTERM, _leave)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(Exit.FAILED)


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if there is something to do.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the database's schema up to date, and make the first signing key where there is none."""
    before, after = run(_migrate(chosen_auth(), check=check))
    if as_json:
        print_json({"before": before, "now": after, "newest": HEAD, "current": after == HEAD})
    elif after == HEAD:
        print(f"the schema is at {HEAD}")
    else:
        say(f"the schema is at {after or 'nothing yet'}, the newest is {HEAD}: run latchstring migrate")
    if after != HEAD:
        raise typer.Exit(Exit.FAILED)


async def _migrate(auth: Auth, *, check: bool) -> tuple[str | None, str | None]:
    try:
        before = await schema_revision(auth.parts.tools.database)
        if not check:
            await auth.prepare()
        return before, await schema_revision(auth.parts.tools.database)
    finally:
        await auth.close()


def _refuse_development_in_public(settings: Settings, host: str) -> None:
    if is_loopback(host):
        return
    if not settings.is_https:
        raise ConfigurationError(
            f"listening on {host}, LATCHSTRING_PUBLIC_URL must be set to the https address that people use"
        )


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(f"can't listen on {host}, port {port}: {error.strerror}")
    listener.set_inheritable(True)
    return listener


def _leave(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(Exit.DONE)


def _introduce(settings: Settings, *, host: str, port: int) -> None:
    shown = "localhost" if is_loopback(host) else host
    print(f"Latchstring serves at http://{shown}:{port}", flush=True)
    if settings.public_url:
        say(f"people reach it at {settings.public_url}")
    if settings.database.startswith("sqlite") and settings.database_url is None:
        say(f"data lies in {Path(settings.data_dir).resolve()}")
    else:
        say("data lies in the database that the settings name")
    if not settings.is_https:
        say("for development only: plain http, cookies are not Secure; set LATCHSTRING_PUBLIC_URL to an https address")
    if settings.public_url is None and settings.client_origin is None:
        say(f"for development only: a front end at {settings.allowed_client_origin} may call; set CLIENT_ORIGIN")
