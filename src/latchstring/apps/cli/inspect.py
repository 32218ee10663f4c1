"""The commands `doctor`, `openapi` and `config`."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from pydantic import SecretStr

from latchstring import Auth, Inspection, Settings
from latchstring.apps.cli.application import auth_of, loaded
from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_record
from latchstring.apps.cli.target import application, environment_settings, refuse_application, run
from latchstring.apps.data_directory import directory_is_private, prepare_data_directory
from latchstring.apps.environment import read_variables, settings_from, unknown_variables, variable_name
from latchstring.apps.server import build_app
from latchstring.errors import ConfigurationError, KeysUnavailableError, UnavailableError
from latchstring.foundation.database import STATEMENTS_ARE_LOST, StandbyError, statements_lost_by_pooler
from latchstring.foundation.vault import new_secret
from latchstring.migrations import HEAD, schema_revision
from latchstring.wiring import Parts

# OWASP's Password Storage Cheat Sheet: Argon2id with at least 19 MiB.
_OWASP_MEMORY_KIB = 19_456


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check: `ok`, `warning` or `failure`, and what to do about it."""

    name: str
    state: str
    words: str = ""


def doctor(
    app: Annotated[
        str | None,
        typer.Argument(metavar="[APP]", help="A FastAPI application to inspect, MODULE:NAME; by default the server."),
    ] = None,
    public: Annotated[
        list[str] | None,
        typer.Option(help="With APP: a path that is public; a trailing * matches every path that begins so."),
    ] = None,
    development: Annotated[
        bool, typer.Option("--development", help="With APP: report missing https as a warning.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the installation. Exits with 1 if a check fails, and with 3 if the settings can't be used."""
    app_name = application.get() if app is None else app
    if app_name is not None:
        _doctor_of(app_name, public=public or (), development=development, as_json=as_json)
        return
    if public or development:
        fail("--public and --development need an application: pass MODULE:NAME", Exit.USAGE)
    checks = run(_checks())
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        _print_checks(checks)
    if any(check.state == "failure" for check in checks):
        raise typer.Exit(Exit.CONFIGURATION if checks[0].state == "failure" else Exit.FAILED)


def _doctor_of(app_name: str, *, public: Sequence[str], development: bool, as_json: bool) -> None:
    app = loaded(app_name)
    auth = auth_of(app)

    async def inspect_app() -> Inspection:
        try:
            return await auth.audit(app, public=public)
        finally:
            await auth.close()

    inspection = run(inspect_app())
    # `--development` excuses missing https only: an unguarded route is a hole on every machine.
    checks = [
        Check(
            finding.name, "warning" if development and finding.name == "insecure_cookies" else "failure", finding.words
        )
        for finding in inspection.findings
    ]
    if as_json:
        routes = [asdict(route) for route in inspection.routes]
        print_json({"routes": routes, "checks": [asdict(check) for check in checks]})
    else:
        for route in inspection.routes:
            print(route)
        _print_checks(checks)
    if any(check.state == "failure" for check in checks):
        raise typer.Exit(Exit.FAILED)


def _print_checks(checks: Iterable[Check]) -> None:
    for check in checks:
        print(f"{check.state:<8} {check.name}" + (f": {check.words}" if check.words else ""))


def openapi(as_json: JsonOption = True) -> None:  # noqa: ARG001 -- it is always JSON
    """Print the OpenAPI document of the server, or of the application that `--app` names."""
    app_name = application.get()
    if app_name is not None:
        print_json(loaded(app_name).openapi())
        return
    # The document depends on settings but not on the secret, so a random one is enough in a build.
    settings = environment_settings()
    if settings.secret is None and not settings.keys_from_environment:
        settings = settings.model_copy(update={"secret": SecretStr(new_secret())})
    print_json(build_app(settings).openapi())


def config(as_json: JsonOption = False) -> None:
    """Print the settings in force, without secrets."""
    refuse_application("an application's settings are in its code")
    settings = environment_settings()
    # By type, not by name: a new secret setting is hidden as soon as it is a SecretStr.
    values = {variable_name(field): "(set)" if isinstance(value, SecretStr) else value for field, value in settings}
    if as_json:
        print_json({name: None if value is None else str(value) for name, value in values.items()})
    else:
        print_record(values)


async def _checks() -> list[Check]:
    variables = read_variables()
    try:
        settings = prepare_data_directory(settings_from(variables))
        auth = Auth.from_settings(settings, features=())
    except ConfigurationError as error:
        return [Check("settings", "failure", str(error))]
    checks = [Check("settings", "ok")]
    checks += [
        Check("settings", "warning", f"{name} is not a setting: check its spelling")
        for name in unknown_variables(variables)
    ]
    checks += _development_checks(settings)
    try:
        checks += [check async for check in _database_checks(auth.parts)]
    finally:
        await auth.close()
    return checks


def _development_checks(settings: Settings) -> list[Check]:
    checks = []
    if settings.is_https:
        checks.append(Check("public url", "ok"))
    else:
        checks.append(
            Check("public url", "warning", "for development only: set LATCHSTRING_PUBLIC_URL to an https URL")
        )
    if settings.previous_secret is not None:
        checks.append(
            Check(
                "secret",
                "warning",
                "LATCHSTRING_PREVIOUS_SECRET is set: remove it when all instances have the new secret",
            )
        )
    if settings.password_hash_memory_kib < _OWASP_MEMORY_KIB:
        checks.append(
            Check(
                "password hash",
                "warning",
                f"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB is below OWASP's minimum: set it to {_OWASP_MEMORY_KIB} or more",
            )
        )
    if not settings.limits:
        checks.append(
            Check(
                "limits", "warning", "LATCHSTRING_LIMITS is off: passwords can be guessed without limit; set it to on"
            )
        )
    if settings.data_dir.exists() and not directory_is_private(settings.data_dir):
        checks.append(Check("data directory", "failure", f"other users may enter {settings.data_dir}: run chmod 700"))
    return checks


async def _database_checks(parts: Parts) -> AsyncIterator[Check]:
    try:
        # A host that drops packets would hold the command for minutes.
        async with asyncio.timeout(10):
            revision = await schema_revision(parts.tools.database)
    except (UnavailableError, TimeoutError) as error:
        # Without the URL, which contains the password.
        words = "the database can't be reached: check its URL, and that it is running"
        yield Check("database", "failure", str(error) if isinstance(error, StandbyError) else words)
        return
    # Nothing in a database tells that it was restored, so that this is said each time.
    yield Check("database", "ok", "after restoring a backup, run latchstring restored")
    if revision != HEAD:
        yield Check("schema", "failure", f"the schema is at {revision or 'nothing yet'}: run latchstring migrate")
        return
    yield Check("schema", "ok")
    try:
        async with parts.tools.database.reading() as connection:
            if await statements_lost_by_pooler(connection):
                yield Check("prepared statements", "failure", STATEMENTS_ARE_LOST)
            await parts.ring.reload(connection)
    except KeysUnavailableError as error:
        yield Check("keys", "failure", str(error))
    else:
        yield Check("keys", "ok")
