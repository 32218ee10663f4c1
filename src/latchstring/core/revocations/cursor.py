"""The cursor of the feed on PostgreSQL: which transactions had ended when the feed was last read. Pure.

    snapshot   710:742:710,731        as PostgreSQL prints it: 710 and 731 were in progress, from 742 on all are to come
    cursor     742.11.32              the same as the feed returns it: 742, and how far below it each of the others lies

A poll reads the entries of exactly these transactions. Reading from the oldest one in progress instead would read every
entry since then again, at each poll: a transaction of another database that is left open for a day is in progress, too.
"""

from dataclasses import dataclass

MAX_OPEN = 100
"""How many transactions a cursor in a URL names. The oldest are named: they are the ones that stay open."""

CURSOR_PATTERN = rf"[0-9]{{1,18}}(\.[0-9]{{1,18}}){{0,{MAX_OPEN}}}"
"""A cursor in a request, on either database. At most 18 digits each, so that a number fits into 64 bits."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the feed."""

    next_id: int
    """Entries of this transaction and of all later ones are to be read."""
    open_ids: tuple[int, ...] = ()
    """Earlier transactions whose entries are to be read, too: they were in progress."""

    @classmethod
    def of_snapshot(cls, snapshot: str) -> "Cursor":
        """Return the position after everything that a snapshot sees.

        Args:
            snapshot: the text of a `pg_snapshot`.
        """
        _, following, in_progress = snapshot.split(":")
        open_ids = sorted(int(number) for number in in_progress.split(",") if number)
        return cls(next_id=int(following), open_ids=tuple(open_ids))

    def shortened(self) -> "Cursor":
        """Return a cursor that fits into a URL, and misses nothing that this one reads."""
        if len(self.open_ids) <= MAX_OPEN:
            return self
        # From the first that is not named on, all entries are read again: too much, and never too little.
        return Cursor(next_id=self.open_ids[MAX_OPEN], open_ids=self.open_ids[:MAX_OPEN])

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return the cursor of a text that matches `CURSOR_PATTERN`. One of an earlier version is a number alone."""
        next_id, *distances = map(int, text.split("."))
        # Nothing lies below 0: the text is a client's, and PostgreSQL would refuse such an id with an error.
        return cls(next_id=next_id, open_ids=tuple(sorted(max(0, next_id - distance) for distance in distances)))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return ".".join(map(str, (self.next_id, *(self.next_id - number for number in self.open_ids))))
