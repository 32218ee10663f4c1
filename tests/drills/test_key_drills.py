"""The drills about keys and tokens, in their small form. `rotation.py` waits for keys to sign: it is run by hand."""

from pathlib import Path

from drills import emergency, fuzz, issuer, mutations
from tests.drills.judged import judge


def test_a_stolen_key_is_out_of_use(tmp_path: Path) -> None:
    """On every worker of two instances, one with a clock that is behind, and in a service that follows."""
    figures = emergency.drill(f"sqlite:///{tmp_path}/latchstring.db", rounds=1, workers=1)
    assert len(figures) == 5
    judge(figures)


def test_no_mutation_of_a_genuine_token_gets_in(tmp_path: Path) -> None:
    """A hundred and twenty and more of each kind, and no connection is opened for them."""
    figures = mutations.drill(f"sqlite:///{tmp_path}/latchstring.db", rounds=5)
    assert len(figures) == 6
    judge(figures)


def test_the_front_end_survives_a_second_of_fuzzing() -> None:
    """The same seed each time: what fails here fails again."""
    figures = fuzz.fuzz(seconds=1, seed=1)
    assert len(figures) == 3
    judge(figures)


def test_an_issuer_that_misbehaves() -> None:
    """Of the faults that take no time: known keys' tokens are taken, the rest refused, and one question asked."""
    figures = issuer.drill(few=True)
    assert len(figures) == 6
    judge(figures)
