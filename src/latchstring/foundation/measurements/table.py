"""A table: the numbers of one process in a flat piece of memory, which may be a file that other processes read.

    16 bytes    how much of the index and of the cells is used
    64 KiB      the index: a line of JSON for each series, `["name", ["label", …], cells]`
    64 KiB      the cells: 64-bit floats

The size is fixed. It is written in full before it is mapped: a page that has no place on the disk would otherwise be
found out by a SIGBUS, and a full disk would end every worker.
"""

import json
import math
from collections.abc import Iterator
from mmap import mmap

from latchstring.foundation.measurements.catalogue import CATALOGUE

_HEADER_BYTES = 16
_INDEX_BYTES = 64 * 1024
_CELLS_BYTES = 64 * 1024
SIZE = _HEADER_BYTES + _INDEX_BYTES + _CELLS_BYTES

Series = tuple[str, ...]
"""A metric's name and the values of its labels."""


class Table:
    """Series and their numbers. Not locked: `Recorder` has the lock."""

    def __init__(self, memory: bytearray | mmap) -> None:
        whole = memoryview(memory)
        self._used = whole[:_HEADER_BYTES].cast("q")
        self._index = whole[_HEADER_BYTES : _HEADER_BYTES + _INDEX_BYTES]
        self.cells = whole[_HEADER_BYTES + _INDEX_BYTES :].cast("d")
        """The numbers. A series has as many of them as `Described.cells` says, from its start on."""

    def add(self, series: Series, *, cells: int) -> int | None:
        """Add a series at zero, and return where its numbers start; None if the table is full."""
        line = json.dumps([series[0], series[1:], cells]).encode() + b"\n"
        index_end, start = self._used
        if index_end + len(line) > _INDEX_BYTES or start + cells > len(self.cells):
            return None
        self._index[index_end : index_end + len(line)] = line
        # Last: what a reader finds to be used is complete.
        self._used[1] = start + cells
        self._used[0] = index_end + len(line)
        return start

    def series(self) -> Iterator[tuple[Series, list[float]]]:
        """Return each series with its numbers."""
        start = 0
        for line in bytes(self._index[: self._used[0]]).splitlines():
            name, labels, cells = json.loads(line)
            yield (name, *labels), list(self.cells[start : start + cells])
            start += cells


def empty_table() -> Table:
    """Return a table in memory, with every series that is known beforehand at zero, and unknown ages."""
    table = Table(bytearray(SIZE))
    for metric, described in CATALOGUE.items():
        for labels in described.known_labels():
            start = table.add((metric.value, *labels), cells=described.cells)
            if start is not None and described.is_age:
                table.cells[start] = math.nan
    return table
