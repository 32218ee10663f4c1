"""Where the project is, and where the tests keep their databases: in memory, where the system has room for files there.

Everything is thrown away, and a disk that stalls for seconds under somebody else's load must not look like an outage.
"""

import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The project."""

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 -- below it, every folder is made by mkdtemp or pytest
_ROOM_BYTES = 4 * 2**30


def fast_folder() -> str:
    """Returns the folder to make temporary folders in."""
    try:
        has_room = shutil.disk_usage(_IN_MEMORY).free >= _ROOM_BYTES
    except OSError:
        has_room = False
    return str(_IN_MEMORY) if has_room else tempfile.gettempdir()
