"""Import the application that a command names: `main:app`, or a factory such as `main:create_app`."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from latchstring import Auth, ConfigurationError
from latchstring.apps.cli.output import Exit, fail


def loaded(name: str) -> FastAPI:
    """Import the application, from the working directory first; exit with code 2 if that fails."""
    module_name, _, attribute = name.partition(":")
    # As `uvicorn main:app` does. A console script's `sys.path` begins with the directory of the script instead.
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        app: object = importlib.import_module(module_name)
    except ConfigurationError:
        # The application's own `Auth` refused its settings: exit code 3, by `main`.
        raise
    except (ImportError, TypeError, ValueError) as error:
        fail(f"{module_name or name!r} can't be imported: {error}", Exit.USAGE)
    for part in (attribute or "app").split("."):
        app = getattr(app, part, None)
    # Only a factory that can be called without arguments: any other function is not one.
    if inspect.isfunction(app) and not inspect.iscoroutinefunction(app) and _has_no_required_parameter(app):
        app = app()
    if not isinstance(app, FastAPI):
        fail(f"{name} is neither a FastAPI application nor a factory of one: pass MODULE:NAME", Exit.USAGE)
    return app


def _has_no_required_parameter(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return all(
        each.default is not each.empty or each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in parameters
    )


def auth_of(app: FastAPI) -> Auth:
    """Return the application's `Auth`; exit with code 1 if it has none."""
    auth = Auth.of(app)
    if auth is None:
        fail("no Auth is installed in this application: call auth.install(app)")
    return auth
