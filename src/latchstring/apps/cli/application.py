"""An application that a command names: `main:app`, or `main:create_app` for a function that makes it."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from latchstring import Auth, ConfigurationError
from latchstring.apps.cli.output import Exit, fail


def loaded(name: str) -> FastAPI:
    """Import the application, from the working folder first; end with exit code 2 where there is none."""
    module_name, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module_name)
    except ConfigurationError:
        raise
    except (ImportError, TypeError, ValueError) as error:
        fail(f"{module_name or name!r} can't be imported: {error}", Exit.USAGE)
    app: object = found
    for part in (attribute or "app").split("."):
        app = getattr(app, part, None)
    if inspect.isfunction(app) and not inspect.iscoroutinefunction(app) and _needs_nothing(app):
        app = app()
    if not isinstance(app, FastAPI):
        fail(f"{name} is no FastAPI application, and no function that makes one: say MODULE:NAME", Exit.USAGE)
    return app


def _needs_nothing(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return all(
        each.default is not each.empty or each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in parameters
    )


def auth_of(app: FastAPI) -> Auth:
    """Return the application's Auth; end with exit code 1 where it has none."""
    auth = Auth.of(app)
    if auth is None:
        fail("no Auth is installed in this application: call auth.install(app)")
    return auth
