"""The catalogue: every metric, with its kind, its meaning, and the values that its labels may have.

docs/metrics.md lists the same; a test compares the two. A counter starts at zero for every combination of its labels,
so that a rate is right from its first event on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from itertools import product

from latchstring.foundation import events
from latchstring.foundation.measurements.names import Metric

OTHER = "other"
"""The value of a label that got one which is not in its list."""


class Kind(StrEnum):
    """How the numbers of several workers become one."""

    COUNTER = auto()
    """Added up, those of ended workers included."""
    HISTOGRAM = auto()
    """Likewise."""
    SUM = auto()
    """A gauge: the sum over the workers that run."""
    MAXIMUM = auto()
    """A gauge: the largest of the workers that run."""
    AGE = auto()
    """A gauge that workers set to an instant, by `Clock.uptime`: the most seconds since then. NaN is unknown."""
    AGE_BY_DATE = auto()
    """The same with an instant in seconds since 1970."""


# From a fast read to the timeouts of 5 s. Three buckets more in each decade would double the cost of a scrape.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of every histogram, in seconds."""

ROUTE_TEMPLATES: frozenset[str] = frozenset()
"""In place of a list: values that are templates of our own routes, and not known before an application has them."""


@dataclass(frozen=True, slots=True)
class Described:
    """A metric's kind, meaning and labels."""

    kind: Kind
    meaning: str
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Each label and the values it may have, besides `other`."""

    @property
    def cells(self) -> int:
        """How many numbers one series has: of a histogram one for each bucket, one for the rest, and the sum."""
        return len(BUCKETS) + 2 if self.kind is Kind.HISTOGRAM else 1

    @property
    def is_age(self) -> bool:
        """Whether workers set it to an instant."""
        return self.kind in {Kind.AGE, Kind.AGE_BY_DATE}

    @property
    def is_open(self) -> bool:
        """Whether its series are made when they are first used, because they are not known before."""
        return ROUTE_TEMPLATES in self.labels.values()

    def known_labels(self) -> Iterator[tuple[str, ...]]:
        """Return every combination of the labels' values."""
        return iter(()) if self.is_open else product(*(sorted(values) for values in self.labels.values()))

    def checked(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels, with `other` in place of each value that is not in its list."""
        given = labels[: len(self.labels)] + ("",) * (len(self.labels) - len(labels))
        # str(…): the value of an enum, which is stored as text.
        return tuple(
            str(value) if value in values or values is ROUTE_TEMPLATES else OTHER
            for value, values in zip(given, self.labels.values(), strict=True)
        )


def _event_names() -> frozenset[str]:
    kinds = (kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event))
    return frozenset(kind.name for kind in kinds if hasattr(kind, "name"))


def _values(*values: str) -> frozenset[str]:
    return frozenset(values)


_DATABASE_CAUSES = _values(
    *(
        "disk_full",
        "locked",
        "no_connection",
        "no_permission",
        "no_tables",
        "pool_empty",
        "read_only",
        "standby",
        "statements_lost",
    ),
    *("timed_out", "too_many_connections", "unreachable"),
)
_METHODS = _values("GET", "POST", "PATCH", "PUT", "DELETE")

CATALOGUE: Mapping[Metric, Described] = {
    Metric.SIGN_INS: Described(
        Kind.COUNTER,
        "Attempts to sign in, at every route together.",
        {
            "method": _values("pwd"),
            "outcome": _values("succeeded", "wrong_credentials", "limited", "refused", "unavailable"),
        },
    ),
    Metric.REFRESHES: Described(
        Kind.COUNTER,
        "Refresh tokens presented for exchange.",
        {"outcome": _values("succeeded", "invalid", "expired", "ended", "reused", "limited", "unavailable")},
    ),
    Metric.REPEATS: Described(
        Kind.COUNTER,
        "Refreshes repeated within the grace, by whether they came from the same network and browser.",
        {"client": _values("same", "elsewhere")},
    ),
    Metric.EVENTS: Described(Kind.COUNTER, "Events recorded in the audit trail.", {"event": _event_names()}),
    Metric.LIMITS_HIT: Described(
        Kind.COUNTER,
        "Attempts refused by a limit.",
        {"limit": _values("account", "address", "register", "refresh")},
    ),
    Metric.HASHES_PENDING: Described(Kind.SUM, "Password hashes that run or wait."),
    Metric.HASHES_REFUSED: Described(Kind.COUNTER, "Password hashes refused because the queue was full."),
    Metric.HASH_WAIT: Described(Kind.HISTOGRAM, "Time a password hash waited for a thread."),
    Metric.HASH: Described(Kind.HISTOGRAM, "Time a password hash took."),
    Metric.REVOCATION_LAG: Described(
        Kind.AGE, "Time since the worst worker's last successful poll of the revocations began."
    ),
    Metric.REVOCATION_ENTRIES: Described(
        Kind.MAXIMUM, "Revocations a worker holds in memory.", {"subject": _values("session", "user")}
    ),
    Metric.REVOCATION_POLLS: Described(
        Kind.COUNTER, "Polls of the revocations.", {"outcome": _values("succeeded", "failed")}
    ),
    Metric.REVOCATION_POLL: Described(Kind.HISTOGRAM, "Time a poll of the revocations took."),
    Metric.KEY_AGE: Described(
        Kind.AGE_BY_DATE,
        "Time since the oldest key of a state was published.",
        {"state": _values("pending", "active", "retired")},
    ),
    Metric.DATABASE_ERRORS: Described(
        Kind.COUNTER,
        "Failures of the database.",
        {"kind": _DATABASE_CAUSES},
    ),
    Metric.TRANSACTION: Described(Kind.HISTOGRAM, "Time a write transaction took, with the wait for its connection."),
    Metric.HTTP_REQUEST: Described(
        Kind.HISTOGRAM,
        "Time a route of ours took, by its template without the prefix.",
        {"route": ROUTE_TEMPLATES, "method": _METHODS},
    ),
    Metric.HTTP_RESPONSES: Described(
        Kind.COUNTER,
        "Responses of our routes.",
        {"route": ROUTE_TEMPLATES, "method": _METHODS, "status": _values("2xx", "3xx", "4xx", "5xx")},
    ),
    Metric.WORKERS: Described(Kind.SUM, "Workers whose numbers are in here."),
}
"""Every metric."""

BY_NAME: Mapping[str, Described] = {metric.value: described for metric, described in CATALOGUE.items()}
"""Every metric by its name as text."""
