"""`doctor`, `openapi` and `config`."""

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
from latchstring.foundation.vault import new_secret
from latchstring.migrations import HEAD, schema_revision
from latchstring.wiring import Parts

_OWASP_MEMORY_KIB = 19_456


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the doctor looked at: `ok`, `warning` or `failure`, and what to do about it."""

    name: str
    state: str
    words: str = ""


def doctor(
    app: Annotated[
        str | None,
        typer.Argument(metavar="[APP]", help="A FastAPI application to look at, MODULE:NAME; otherwise the server."),
    ] = None,
    public: Annotated[
        list[str] | None,
        typer.Option(help="With APP: a path that everybody may come to; * at its end means all below."),
    ] = None,
    development: Annotated[
        bool, typer.Option("--development", help="With APP: what is insecure for lack of https is a warning.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the set-up. Exits with 1 when something is broken, 3 when the settings can't be used."""
    named = application.get() if app is None else app
    if named is not None:
        _doctor_of(named, public=public or (), development=development, as_json=as_json)
        return
    if public or development:
        fail("--public and --development speak of an application: name it, MODULE:NAME", Exit.USAGE)
    checks = run(_checks())
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        _print_checks(checks)
    if any(check.state == "failure" for check in checks):
        raise typer.Exit(Exit.CONFIGURATION if checks[0].state == "failure" else Exit.FAILED)


def _doctor_of(named: str, *, public: Sequence[str], development: bool, as_json: bool) -> None:
    app = loaded(named)
    auth = auth_of(app)

    async def look() -> Inspection:
        try:
            return await auth.audit(app, public=public)
        finally:
            await auth.close()

    inspection = run(look())
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


def openapi(as_json: JsonOption = True) -> None:  # noqa: ARG001 -- it is JSON, asked for or not
    """Print the OpenAPI document of the server, or of the application that `--app` names."""
    named = application.get()
    if named is not None:
        print_json(loaded(named).openapi())
        return
    # The document depends on settings, but not on secrets: any secret will do.
    settings = environment_settings()
    if settings.secret is None and not settings.keys_from_environment:
        settings = settings.model_copy(update={"secret": SecretStr(new_secret())})
    print_json(build_app(settings).openapi())


def config(as_json: JsonOption = False) -> None:
    """Print the settings in force, without secrets."""
    refuse_application("an application's settings are in its code")
    settings = environment_settings()
    shown = {variable_name(field): "(set)" if isinstance(value, SecretStr) else value for field, value in settings}
    if as_json:
        print_json({name: None if value is None else str(value) for name, value in shown.items()})
    else:
        print_record(shown)


async def _checks() -> list[Check]:
    variables = read_variables()
    try:
        settings = prepare_data_directory(settings_from(variables))
        auth = Auth.from_settings(settings, features=())
    except ConfigurationError as error:
        return [Check("settings", "failure", str(error))]
    checks = [Check("settings", "ok")]
    checks += [
        Check("settings", "warning", f"{name} is no setting: misspelt?") for name in unknown_variables(variables)
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
            Check("public url", "warning", "for development only; set LATCHSTRING_PUBLIC_URL to an https address")
        )
    if settings.previous_secret is not None:
        checks.append(
            Check("secret", "warning", "LATCHSTRING_PREVIOUS_SECRET is set: take it away when all have the new one")
        )
    if settings.password_hash_memory_kib < _OWASP_MEMORY_KIB:
        checks.append(Check("password hash", "warning", f"less than the {_OWASP_MEMORY_KIB} KiB that OWASP asks for"))
    if not settings.limits:
        checks.append(
            Check("limits", "warning", "LATCHSTRING_LIMITS is off: whoever guesses passwords may go on for ever")
        )
    if settings.data_dir.exists() and not directory_is_private(settings.data_dir):
        checks.append(Check("data folder", "failure", f"others may enter {settings.data_dir}: chmod 700"))
    return checks


async def _database_checks(parts: Parts) -> AsyncIterator[Check]:
    try:
        async with asyncio.timeout(10):
            revision = await schema_revision(parts.tools.database)
    except (UnavailableError, TimeoutError):
        yield Check("database", "failure", "it can't be reached with these settings")
        return
    yield Check("database", "ok")
    if revision != HEAD:
        yield Check("schema", "failure", f"it is at {revision or 'nothing yet'}: run latchstring migrate")
        return
    yield Check("schema", "ok")
    try:
        async with parts.tools.database.reading() as connection:
            await parts.ring.reload(connection)
    except KeysUnavailableError as error:
        yield Check("keys", "failure", str(error))
    else:
        yield Check("keys", "ok")
