"""Style sheets, scripts and the icon. Their names contain a hash of their content, so that browsers cache them."""

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
# A year: a changed file has another name, so a cached copy is never out of date.
_IMMUTABLE = "public, max-age=31536000, immutable"
_HASH_LENGTH = 12
_COMMENT_OR_INDENT = re.compile(rb"/\*.*?\*/|^\s+", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, read once at the start."""

    content: bytes
    media_type: str
    hashed_name: str
    """Its name in URLs, such as `latchstring.3f2a….css`."""


class Assets:
    """Every file that pages load."""

    def __init__(self, theme: Mapping[str, str]) -> None:
        self._files = {path.name: _asset(path.name, _minified(path)) for path in sorted(STATIC.iterdir())}
        # A style sheet and not a `style` attribute, which our content security policy refuses. `Pages` has checked it.
        if theme:
            declared = "".join(f"  --{variable}: {value};\n" for variable, value in theme.items())
            self._files[THEME] = _asset(THEME, f":root {{\n{declared}}}\n".encode())
        self._hashed = {asset.hashed_name: asset for asset in self._files.values()}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def hashed_name(self, name: str) -> str:
        """Return the name, with its hash, under which this version serves a file."""
        return self._files[name].hashed_name

    def response(self, hashed_name: str) -> Response | None:
        """Return the response with a file, or None if there is none of that name."""
        # Looked up in memory: a name from a URL never becomes a path.
        asset = self._hashed.get(hashed_name)
        cache_control = _IMMUTABLE
        if asset is None:
            # During a rolling update, a page of the other version loads this: our file is better than none, uncached.
            stem, _, rest = hashed_name.partition(".")
            asset, cache_control = self._files.get(f"{stem}.{rest.rpartition('.')[2]}"), "no-store"
        if asset is None:
            return None
        headers = {"Cache-Control": cache_control, "X-Content-Type-Options": "nosniff"}
        return Response(asset.content, media_type=asset.media_type, headers=headers)


def _minified(path: Path) -> bytes:
    content = path.read_bytes()
    # Comments and indentation are a fifth of the style sheet, which every visitor loads.
    return _COMMENT_OR_INDENT.sub(b"", content) if path.suffix == ".css" else content


def _asset(name: str, content: bytes) -> Asset:
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]
    return Asset(content, _MEDIA_TYPES[dot + suffix], f"{stem}.{digest}{dot}{suffix}")
