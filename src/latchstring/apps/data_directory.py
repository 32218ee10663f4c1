"""The server's home: a folder only its owner may enter, with the secret and, by default, the database."""

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from latchstring.errors import ConfigurationError
from latchstring.foundation.vault import new_secret
from latchstring.settings import DATABASE_FILE, SECRET_MIN_LENGTH, Settings

SECRET_FILE = "secret"  # noqa: S105 -- a file's name
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


def prepare_data_directory(settings: Settings) -> Settings:
    """Return the settings with what the home provides: its folder made, and its secret, where none was given.

    Raises:
        ConfigurationError: the folder or the secret can't be used, or the database is shared and needs a secret that
            every instance knows.
    """
    is_sqlite = settings.database.startswith("sqlite")
    needs_secret = settings.secret is None and not settings.keys_from_environment
    if needs_secret and not is_sqlite:
        raise ConfigurationError(
            "LATCHSTRING_SECRET must be set, with at least 32 characters: it seals the signing keys in the database, "
            "and every instance needs the same one (or set JWT_PRIVATE_KEY and keep the keys out of the database)"
        )
    if needs_secret or (settings.database_url is None and is_sqlite):
        _make_folder(settings.data_dir)
    if not needs_secret:
        return settings
    return settings.model_copy(update={"secret": SecretStr(_kept_secret(settings.data_dir / SECRET_FILE))})


def directory_is_private(folder: Path) -> bool:
    """Tell whether nobody but its owner may enter the folder."""
    return folder.stat().st_mode & 0o077 == 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        if not directory_is_private(folder):
            _close(folder)
    except OSError as error:
        raise ConfigurationError(
            f"LATCHSTRING_DATA_DIR: the folder {folder} can't be made or kept private ({error.strerror})"
        ) from None


def _close(folder: Path) -> None:
    # Only a folder that is ours: closing somebody's home, or /tmp, would be worse than not starting.
    if any(folder.iterdir()) and not any((folder / name).exists() for name in (SECRET_FILE, DATABASE_FILE)):
        raise ConfigurationError(
            f"LATCHSTRING_DATA_DIR: {folder} is open to others and holds other things; name a folder of its own"
        )
    folder.chmod(_FOLDER_MODE)


def _kept_secret(path: Path) -> str:
    try:
        if not path.exists():
            _keep_new_secret(path)
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            f"LATCHSTRING_DATA_DIR: the secret in {path} can't be made or read ({error.strerror})"
        ) from None
    except UnicodeDecodeError:
        secret = ""
    if len(secret) < SECRET_MIN_LENGTH:
        raise ConfigurationError(f"the secret in {path} must be text of at least {SECRET_MIN_LENGTH} characters")
    return secret


def _keep_new_secret(path: Path) -> None:
    # Whoever is first makes it, whole, under another name; a link never replaces one that is there already. Names are
    # random: in containers that share a folder, everybody has the same process id.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "w") as file:
            file.write(new_secret() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
