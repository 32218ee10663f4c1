"""What the suite makes of a drill's figures."""

from collections.abc import Sequence

import pytest

from drills.ground import Figure, Says


def judge(figures: Sequence[Figure]) -> None:
    """Fails where a promise was broken; skips, with the reason, where the machine did not let one be put to the test.

    How soon something happened is not judged here, that it happened is.
    """
    assert figures, "nothing was tried"
    missed = [figure for figure in figures if not figure.is_kept]
    broken = [figure.line() for figure in missed if figure.says is Says.PROMISE]
    assert not broken, "\n".join(["", *broken])
    untried = [figure.line() for figure in missed if figure.says is Says.CONDITION]
    if untried:
        pytest.skip("\n".join(["not judged, the machine has too much else to do:", *untried]))
