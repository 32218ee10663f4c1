"""Style sheets, modules and the icon: named after what is in them, so that a browser keeps them for good."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

STATIC = Path(__file__).with_name("static")
THEME = "theme.css"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_GOOD = "public, max-age=31536000, immutable"
_HASH_LENGTH = 12
_COMMENT_OR_INDENT = re.compile(rb"/\*.*?\*/|^\s+", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, read once."""

    content: bytes
    media_type: str
    hashed_name: str
    """`latchstring.3f2a….css`."""


class Assets:
    """Every file that pages load."""

    def __init__(self, theme: Mapping[str, str]) -> None:
        self._files = {path.name: _asset(path.name, _sent(path)) for path in sorted(STATIC.iterdir())}
        if theme:
            declared = "".join(f"  --{variable}: {value};\n" for variable, value in theme.items())
            self._files[THEME] = _asset(THEME, f":root {{\n{declared}}}\n".encode())
        self._hashed = {asset.hashed_name: asset for asset in self._files.values()}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def hashed_name(self, name: str) -> str:
        """Return what `name` is called today."""
        return self._files[name].hashed_name

    def response(self, hashed_name: str) -> Response | None:
        """Return a file; None where there is none of that name."""
        asset = self._hashed.get(hashed_name)
        kept = _FOR_GOOD
        if asset is None:
            # Another version's page asks, while versions change: today's file is better than none, and not to be kept.
            stem, _, rest = hashed_name.partition(".")
            asset, kept = self._files.get(f"{stem}.{rest.rpartition('.')[2]}"), "no-store"
        if asset is None:
            return None
        headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
        return Response(asset.content, media_type=asset.media_type, headers=headers)


def _sent(path: Path) -> bytes:
    content = path.read_bytes()
    # What explains a style sheet is for those who read it here, and a fifth of it.
    return _COMMENT_OR_INDENT.sub(b"", content) if path.suffix == ".css" else content


def _asset(name: str, content: bytes) -> Asset:
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]
    return Asset(content, _MEDIA_TYPES[dot + suffix], f"{stem}.{digest}{dot}{suffix}")
