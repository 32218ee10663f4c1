"""The command line of the benchmarks: our promises, or this working tree beside another commit."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from benchmarks import against
from benchmarks.figures import FIGURES, Bench, Figure
from benchmarks.load import WRK
from benchmarks.servers import LOAD_CORE, ROOT, on_cores


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what a command line asks for; one that asks for what there is not ends the process."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description="Measure the promises of speed and memory.")
    parser.add_argument("--against", metavar="REF", help="compare this working tree with another commit instead")
    parser.add_argument("--metrics", action="store_true", help="compare metrics on with metrics off instead")
    parser.add_argument("--only", choices=[*FIGURES, *(row for row in against.ROWS if row not in FIGURES)])
    parser.add_argument("--seconds", type=int, help="how long each round lasts (2; 1 for each side that is compared)")
    parser.add_argument("--rounds", type=int, help=f"how many rounds of --against ({against.ROUNDS})")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args(arguments)
    if given.against and given.metrics:
        parser.error("--against and --metrics are two comparisons")
    compares = bool(given.against or given.metrics)
    if not compares and given.rounds is not None:
        parser.error("--rounds is for --against")
    if given.only and given.only not in (against.ROWS if compares else FIGURES):
        parser.error(f"--only {given.only} is {'not' if compares else 'only'} for --against")
    given.rounds = against.ROUNDS if given.rounds is None else given.rounds
    if given.rounds < against.LEAST_ROUNDS:
        parser.error(f"{against.LEAST_ROUNDS} rounds at least: fewer have no 95 % interval")
    given.seconds = given.seconds or (1 if compares else 2)
    return given


def main() -> int:
    """Run the command line; return its exit code."""
    given = parsed()
    print(f"Load by {'wrk' if WRK else 'an asyncio loop (wrk is not installed)'}, database {given.database}.\n")
    with _bench(seconds=given.seconds, database=given.database) as (bench, folder), on_cores(LOAD_CORE):
        if given.against is None and not given.metrics:
            names = [given.only] if given.only else list(FIGURES)
            figures = uvloop.run(_measure(bench, names))
            return 0 if all(figure.is_kept for figure in figures) else 1
        names = [given.only] if given.only else list(against.ROWS)
        with contextlib.ExitStack() as stack:
            old_tree = ROOT if given.metrics else stack.enter_context(against.checked_out(given.against, folder))
            old, new = against.variables_of(old_tree), against.variables_of(ROOT)
            print(f"Processor time of a request, new by old; {given.rounds} rounds.\n")
            print(
                "| request | new / old | 95 % | verdict | absolute, today and here |\n| --- | --- | --- | --- | --- |"
            )
            new |= against.METRICS if given.metrics else {}
            rows = uvloop.run(against.compare(bench, names, old=old, new=new, rounds=given.rounds))
        return 1 if any(row.verdict == "slower" for row in rows) else 0


async def _measure(bench: Bench, names: Sequence[str]) -> list[Figure]:
    print("| figure | bound | measured | verdict | absolute, today and here |\n| --- | --- | --- | --- | --- |")
    figures = []
    for name in names:
        for figure in await FIGURES[name](bench):
            print(figure.line(), flush=True)
            figures.append(figure)
    return figures


@contextlib.contextmanager
def _bench(*, seconds: int, database: str) -> Iterator[tuple[Bench, Path]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latchstring-benchmarks-")))
        new_postgresql_url = None
        if database == "postgresql":
            from tests.support.postgres import server_for_tests  # noqa: PLC0415 -- only here

            new_postgresql_url = stack.enter_context(server_for_tests()).create_database
        yield Bench(folder, seconds=seconds, new_postgresql_url=new_postgresql_url), folder
