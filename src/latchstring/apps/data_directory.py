"""The data directory: private to its owner, with the secret and, by default, the SQLite database."""

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from latchstring.errors import ConfigurationError
from latchstring.foundation.vault import new_secret
from latchstring.settings import DATABASE_FILE, SECRET_MIN_LENGTH, Settings

SECRET_FILE = "secret"  # noqa: S105 -- a file's name
# Other users of the machine must read neither the secret nor a copy of the database.
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


def prepare_data_directory(settings: Settings) -> Settings:
    """Make the data directory if it is needed, and return the settings with its secret if they have none.

    Raises:
        ConfigurationError: the directory or the secret can't be used, or the database is PostgreSQL and no secret is
            set.
    """
    is_sqlite = settings.database.startswith("sqlite")
    needs_secret = settings.secret is None and not settings.keys_from_environment
    # On PostgreSQL each instance would make a secret of its own, and could not decrypt the others' signing keys.
    if needs_secret and not is_sqlite:
        raise ConfigurationError(
            "LATCHSTRING_SECRET must be set, with at least 32 characters: it encrypts the signing keys in the database,"
            " and every instance needs the same one (or set JWT_PRIVATE_KEY and keep the keys out of the database)"
        )
    if needs_secret or (settings.database_url is None and is_sqlite):
        _make_directory(settings.data_dir)
    if not needs_secret:
        return settings
    return settings.model_copy(update={"secret": SecretStr(_kept_secret(settings.data_dir / SECRET_FILE))})


def directory_is_private(directory: Path) -> bool:
    """Return whether only the owner may enter the directory."""
    return directory.stat().st_mode & 0o077 == 0


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        # It was there before, and others may enter it.
        if not directory_is_private(directory):
            _make_private(directory)
    except OSError as error:
        raise ConfigurationError(
            f"LATCHSTRING_DATA_DIR: the directory {directory} can't be made or made private ({error.strerror})"
        ) from None


def _make_private(directory: Path) -> None:
    # Only a directory of ours: to close a home directory, or /tmp, to its users would be worse than not to start.
    if any(directory.iterdir()) and not any((directory / name).exists() for name in (SECRET_FILE, DATABASE_FILE)):
        raise ConfigurationError(
            f"LATCHSTRING_DATA_DIR: {directory} is open to other users and has other files in it: "
            "name a directory that only this service uses"
        )
    directory.chmod(_DIRECTORY_MODE)


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
    # Refused and not replaced: with another secret, the keys in the database could not be decrypted any more.
    if len(secret) < SECRET_MIN_LENGTH:
        raise ConfigurationError(f"the secret in {path} must be text of at least {SECRET_MIN_LENGTH} characters")
    return secret


def _keep_new_secret(path: Path) -> None:
    # Several processes may start at once: each writes a whole draft, and `link` lets only the first one win. The names
    # are random, because processes in containers that share a directory may have the same process id.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        # The mode when it is created, not by a `chmod` afterwards, until which others could open it.
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "w") as file:
            file.write(new_secret() + "\n")
            file.flush()
            # On the disk before keys are sealed under it: after a power failure they could not be decrypted.
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
