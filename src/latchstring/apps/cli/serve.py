"""The commands `serve` and `migrate`."""

import asyncio
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn

from latchstring import Auth, Settings
from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, say
from latchstring.apps.cli.target import chosen_auth, environment_settings, refuse_application, run
from latchstring.apps.connections import BoundedProtocol
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.logs import configure_logging
from latchstring.apps.metrics import start_metrics
from latchstring.apps.server import prepare
from latchstring.apps.shutdown import COMPLETION_SECONDS, DrainingServer
from latchstring.apps.supervisor import Supervisor
from latchstring.apps.systemd import READY, STOPPING, notify
from latchstring.errors import ConfigurationError
from latchstring.foundation.web.settings import is_loopback
from latchstring.migrations import HEAD, schema_revision


def serve(
    host: Annotated[str, typer.Option(help="The IP address or host name to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 chooses a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="The number of worker processes.")] = 1,
    migrate: Annotated[bool, typer.Option(help="Migrate the schema first.")] = True,
) -> None:
    """Serve sign-in over HTTP."""
    refuse_application("run your application as any FastAPI application, with uvicorn for example")
    settings = environment_settings()
    _refuse_development_in_public(settings, host)
    settings = prepare_data_directory(settings)
    # Once, before the workers: each of them would otherwise wait for the lock of the first one's migration.
    asyncio.run(prepare(settings, migrate=migrate))
    config = _config(host=host, port=port, workers=workers)
    configure_logging()
    # Bound here and inherited by the workers: a port in use is one error message, and not one of each worker.
    listener = _bound(host, port)
    metrics_url = start_metrics(settings, _bound)
    _print_start(settings, host=host, port=listener.getsockname()[1], metrics_url=metrics_url)
    if workers > 1:
        _run_workers(config, listener, settings)
    else:
        _run_alone(config, listener, settings)


def _run_alone(config: uvicorn.Config, listener: socket.socket, settings: Settings) -> None:
    # For a signal before the server handles it, or after: a requested shutdown exits with 0.
    signal.signal(signal.SIGTERM, _exit_normally)
    server = DrainingServer(
        config,
        drain_seconds=settings.shutdown_drain_seconds,
        on_started=partial(notify, READY),
        on_stopping=partial(notify, STOPPING),
    )
    try:
        server.run(sockets=[listener])
    except SystemExit:
        # uvicorn exits with 3 if the application does not start, which is the code for bad settings here.
        fail("the server did not start; the log above says why")
    if not server.started:
        raise typer.Exit(Exit.FAILED)


def _run_workers(config: uvicorn.Config, listener: socket.socket, settings: Settings) -> None:
    supervisor = Supervisor(
        config,
        listener=listener,
        drain_seconds=settings.shutdown_drain_seconds,
        on_ready=partial(notify, READY),
        on_stopping=partial(notify, STOPPING),
    )
    if not supervisor.run():
        fail("no worker can serve; the log above says why")


def _config(*, host: str, port: int, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        "latchstring.apps.server:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=BoundedProtocol,
        # The server has no WebSocket routes: an upgrade would only be more to parse.
        ws="none",
        log_config=None,
        access_log=False,
        # The name of the server software helps only attackers.
        server_header=False,
        # We read `X-Forwarded-For` ourselves, and only from proxies named in the settings. Trusted from anybody, it
        # would give each guess a client address of its own (allauth 65.14.2, CVE-2023-41338).
        proxy_headers=False,
        timeout_graceful_shutdown=COMPLETION_SECONDS,
    )


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if a migration is needed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Migrate the database schema, and make the first signing key if there is none."""
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
    # On such an address others can connect: without https, passwords and cookies would cross the network in the clear.
    if is_loopback(host):
        return
    if not settings.is_https:
        raise ConfigurationError(
            f"to listen on {host}, LATCHSTRING_PUBLIC_URL must be set to the https URL that browsers use"
        )


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # A restart must not wait for the old connections in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(f"can't listen on {host}, port {port}: {error.strerror}")
    listener.set_inheritable(True)
    return listener


def _exit_normally(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(Exit.DONE)


def _print_start(settings: Settings, *, host: str, port: int, metrics_url: str | None) -> None:
    name = "localhost" if is_loopback(host) else host
    print(f"Latchstring serves at http://{name}:{port}", flush=True)
    if settings.public_url:
        say(f"its public URL is {settings.public_url}")
    if settings.database.startswith("sqlite") and settings.database_url is None:
        say(f"the data directory is {Path(settings.data_dir).resolve()}")
    else:
        say("the database is the one in the settings")
    if metrics_url is not None:
        say(f"metrics are at {metrics_url}")
    if not settings.is_https:
        say("for development only: plain http, cookies are not Secure; set LATCHSTRING_PUBLIC_URL to an https URL")
    if settings.public_url is None and settings.client_origin is None:
        say(f"for development only: a front end at {settings.allowed_client_origin} may call; set CLIENT_ORIGIN")
