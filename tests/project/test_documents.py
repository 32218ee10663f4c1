"""What the documents show is true: the README's tour runs, Python examples compile, links lead somewhere.

The tour lies between `<!-- tour -->` and `<!-- /tour -->`. Each ```sh block is run as it stands, by bash, against a
server of its own; the ```text block after it, where there is one, is what it must print.
"""

import os
import re
import shutil
import subprocess
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.folders import ROOT
from tests.support.hang import HANG_SECONDS
from tests.support.process import CHEAP_HASH, FORKED, ServerProcess, clean_environment
from tests.support.service import SECRET

DOCUMENTS = [path for place in (".", "docs/**", "examples/**") for path in sorted(ROOT.glob(f"{place}/*.md"))]
README_ADDRESS = "http://localhost:8000"

# What differs from visit to visit, and stands in the README as it was on one of them.
VOLATILE = {
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "<id>",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)": "<time>",
    r"(?i)(?<=date: ).*": "<date>",
    r"eyJ[\w-]+\.[\w-]+\.[\w-]+": "<token>",
    r'(?<="request_id":")[0-9a-f]{16}|(?i:(?<=x-request-id: ))[0-9a-f]{16}': "<request>",
    r'(?<="kid":")[\w-]{43}|(?<="n":")[\w-]{342,}': "<key>",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, what its fence says, and what is inside."""

    document: Path
    line: int
    fence: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text()
    for match in re.finditer(r"^```(\S.*)\n((?:.*\n)*?)^```$", text, re.MULTILINE):
        yield Block(document, text.count("\n", 0, match.start()) + 1, match[1].strip(), match[2])


def tour(readme: Path) -> list[tuple[Block, str | None]]:
    """Returns the tour's commands, each with what it must print, or None where the README does not say."""
    first, last = (readme.read_text().split(mark)[0].count("\n") for mark in ("<!-- tour -->", "<!-- /tour -->"))
    inside = [block for block in blocks(readme) if first < block.line <= last]
    following = [*inside[1:], Block(readme, 0, "", "")]
    return [
        (block, after.text if after.fence == "text" else None)
        for block, after in zip(inside, following, strict=True)
        if block.fence == "sh"
    ]


def steadied(text: str) -> str:
    """Returns `text` with a mark for each thing that is another one at every visit."""
    for pattern, mark in VOLATILE.items():
        text = re.sub(pattern, mark, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="the tour needs bash and curl")
def test_the_readmes_tour(tmp_path: Path) -> None:
    """Pasted into a terminal, line for line, the tour gives what the README says."""
    steps = tour(ROOT / "README.md")
    assert sum(block.text.count("curl ") for block, _ in steps) >= 5, "register, login, dashboard, refresh, logout"
    assert any(printed for _, printed in steps)
    with ServerProcess(tmp_path, variables=CHEAP_HASH) as server:
        for block, printed in steps:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text.replace(README_ADDRESS, server.url)],  # noqa: S607 -- a reader's own
                cwd=tmp_path,
                env=clean_environment({"no_proxy": "*"}),
                capture_output=True,
                text=True,
                timeout=HANG_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"{block}: {done.stderr}"
            if printed is not None:
                assert steadied(done.stdout.replace(server.url, README_ADDRESS)) == steadied(printed), str(block)


def python_of(document: Path) -> list[Block]:
    return [block for block in blocks(document) if block.fence == "python"]


WITH_PYTHON = [document for document in DOCUMENTS if python_of(document)]


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_examples(document: Path, tmp_path: Path) -> None:
    """Run as a reader would paste them, one after the other, in a folder of their own; a warning is a failure."""
    words = tmp_path / "words"
    environment = {"APP_SECRET": SECRET, "PYTHONDONTWRITEBYTECODE": "1"}
    run = FORKED.Process(target=pasted, args=(python_of(document), tmp_path, clean_environment(environment), words))
    run.start()
    run.join(HANG_SECONDS)
    if run.exitcode is None:
        run.kill()
    assert run.exitcode == 0, words.read_text()


def pasted(run: Sequence[Block], cwd: Path, environment: Mapping[str, str], words: Path) -> None:
    """Runs blocks in one namespace, in this process; what is wrong goes to a file."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("error")
    namespace: dict[str, object] = {"__name__": "pasted"}
    try:
        for block in run:
            # Empty lines before it, so that a traceback tells the line of the document.
            source = compile("\n" * block.line + block.text, block.document, "exec")
            exec(source, namespace)  # noqa: S102 -- the point
    except BaseException:
        words.write_text(traceback.format_exc())
        raise


def test_every_fence_that_is_python_is_run() -> None:
    """A block that says `python` and something else would be left out."""
    for document in DOCUMENTS:
        for block in blocks(document):
            assert block.fence == "python" or not block.fence.startswith("python"), str(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """A link within the repository names a file that is there, and a heading that is in it."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", document.read_text()):
        path, _, heading = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}, target


def test_the_runner_itself(tmp_path: Path) -> None:
    """It finds commands and what they print, leaves out what is outside the tour, and steadies only what may vary."""
    readme = tmp_path / "README.md"
    fence = "```"
    steps = [("sh", "echo 1"), ("text", "1"), ("sh", "echo 2"), ("sh", "echo 3")]
    written = "\n".join(f"{fence}{kind}\n{text}\n{fence}\n" for kind, text in steps)
    readme.write_text(f"{fence}sh\nserve\n{fence}\n<!-- tour -->\n{written}<!-- /tour -->\n{fence}sh\nlater\n{fence}\n")
    assert [(block.text, printed) for block, printed in tour(readme)] == [
        ("echo 1\n", "1\n"),
        ("echo 2\n", None),
        ("echo 3\n", None),
    ]
    one, other = (
        f'{{"id":"01a20ac2-70a9-78e9-8317-{n}ad0ae37d02f","created_at":"2026-11-23T23:34:0{n}Z","email":"a@b"}} \r\n'
        for n in (1, 2)
    )
    assert steadied(one) == steadied(other)
    assert steadied(one) != steadied(other.replace("a@b", "c@d"))


# --- what a security page says is held by something ------------------------------------------------------------------

_HELD = re.compile(r"`((?:test_\w+)|(?:(?:tests|drills)/[\w/]+\.py))`")
_TESTS = {
    name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
}


def promises(document: Path, heading: str) -> Iterator[tuple[str, str]]:
    """Returns each row below a heading: what it says, and what is said to hold it."""
    section = document.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[-1] not in {"held by", "shown by"} and not set(line) <= set("| -"):
            yield line, cells[-1].rstrip("| ")


@pytest.mark.parametrize(
    ("document", "heading", "may_be_untested"),
    [
        ("SECURITY.md", "What holds", False),
        ("SECURITY.md", "Honest limits", True),
        ("docs/threat-model.md", "Against whom", False),
    ],
)
def test_what_a_security_page_promises_is_held_by_a_test(document: str, heading: str, may_be_untested: bool) -> None:  # noqa: FBT001
    """Each line names a test or a drill that there is; a limit that nothing can show says so."""
    rows = list(promises(ROOT / document, heading))
    assert len(rows) > 15
    for line, holder in rows:
        if may_be_untested and holder == "no test":
            continue
        named = _HELD.findall(holder)
        assert named, f"nothing holds: {line}"
        assert re.sub(_HELD, "", holder).strip(" ,") == "", f"not a test or a drill: {holder}"
        for name in named:
            assert name in _TESTS if name.startswith("test_") else (ROOT / name).is_file(), f"there is no {name}"


_PLACES = re.compile(r"`((?:core|features|foundation|migrations)/[\w/]+\.py)`: ((?:`\w+`(?:, )?)+)")


def test_what_we_use_of_postgresql_stands_where_the_table_says() -> None:
    """Who weighs another database looks there."""
    found = _PLACES.findall((ROOT / "docs/operations.md").read_text())
    assert len(found) >= 13
    for path, names in found:
        source = (ROOT / "src/latchstring" / path).read_text()
        assert [name for name in re.findall(r"\w+", names) if name not in source] == [], path
