"""How fast and how large: the promises of `docs/performance.md`, measured here and now.

    .venv/bin/python benchmarks/run.py [--only NAME] [--seconds N] [--database sqlite|postgresql]
    .venv/bin/python benchmarks/run.py --against REF [--rounds N] [the same]

Prints a Markdown table and exits with 1 when a bound is missed. Every figure is a ratio of two measurements made side
by side, because what a machine does in a second changes from minute to minute, and the ratio hardly does.

bare.py, bare_database.py   what we are compared with: the same work without us
watched.py                  our server, with a task that sees when the event loop is held
servers.py                  a server as a process: pinned to a core, timed, weighed
load.py                     wrk, or a loop of our own; a loop that follows the cookies
sight.py                    a token, read in this process beside the library
library.py                  what an application pays that has us
pages.py                    what a page costs, and how soon it is seen
figures.py                  the promises
against.py                  this working tree beside another commit
command.py                  the command line
"""

import sys
from pathlib import Path

# Started as a script: the project's folder makes `benchmarks` and `tests.support` importable.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.command import main  # noqa: E402 -- see above

if __name__ == "__main__":
    sys.exit(main())
