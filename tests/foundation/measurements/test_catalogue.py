"""Names and labels are promises: dashboards and alerts are made of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstring.foundation import events
from latchstring.foundation.measurements.catalogue import CATALOGUE, OTHER, ROUTE_TEMPLATES, Kind
from latchstring.foundation.measurements.names import Metric
from tests.support.folders import ROOT

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
TYPES = {Kind.COUNTER: "counter", Kind.HISTOGRAM: "histogram"}
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"


def documented() -> dict[str, tuple[str, dict[str, set[str]]]]:
    """Returns each metric of the table with its type, and its labels with their values."""
    rows = {}
    for line in DOCUMENT.splitlines():
        if line.startswith("| `latchstring_"):
            name, kind, labels, _ = (cell.strip() for cell in line.strip("|").split(" | "))
            parts = [part.partition(":") for part in labels.split(" · ") if part != "–"]
            rows[name.strip("`")] = (
                kind,
                {label.strip("` "): set(re.findall(r"`([^`]+)`", values)) for label, _, values in parts},
            )
    return rows


def test_the_docs_list_exactly_what_is_exported() -> None:
    """Every metric with its type, every label with every value it may have, and no others."""
    exported = {
        metric.value: (
            TYPES.get(described.kind, "gauge"),
            {label: set(values) for label, values in described.labels.items()},
        )
        for metric, described in CATALOGUE.items()
    }
    assert documented() == exported
    assert set(CATALOGUE) == set(Metric)


def queries(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Returns each metric that PromQL asks for, with its selectors."""
    for name, selectors in re.findall(r"\b(latchstring_\w+)(?:\{([^}]*)\})?", text):
        yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', selectors))


def exists(name: str, selectors: dict[str, str]) -> bool:
    """Returns whether a query could ever find something."""
    suffix = re.sub(r"_(bucket|sum|count)$", "", name)
    if name not in set(Metric):
        if suffix not in set(Metric) or CATALOGUE[Metric(suffix)].kind is not Kind.HISTOGRAM:
            return False
        name = suffix
    labels = CATALOGUE[Metric(name)].labels
    for label, value in selectors.items():
        if label == "job":
            continue
        values = labels.get(label)
        if values is None or (values is not ROUTE_TEMPLATES and not set(value.split("|")) <= values):
            return False
    return True


@pytest.mark.parametrize("path", [DASHBOARD, ROOT / "docs" / "metrics.md"], ids=lambda path: path.name)
def test_every_metric_that_is_queried_exists(path: Path) -> None:
    """A panel of a metric that was renamed stays empty, and an alert of one never fires."""
    found = list(queries(path.read_text()))
    assert len(found) > 15
    assert [query for query in found if not exists(*query)] == []


def test_the_dashboard_shows_every_metric() -> None:
    """And each panel has a title, queries and the chosen data source."""
    dashboard = json.loads(DASHBOARD.read_text())
    shown = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            shown |= {re.sub(r"_bucket$", "", name) for name, _ in queries(target["expr"])}
    assert shown == set(Metric)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_a_query_that_finds_nothing_is_noticed() -> None:
    """By its name, its label, or its label's value."""
    assert exists("latchstring_sign_ins_total", {"outcome": "succeeded|limited", "job": "$job"})
    assert exists("latchstring_hash_seconds_bucket", {})
    for name, selectors in [
        ("latchstring_logins_total", {}),
        ("latchstring_workers_bucket", {}),
        ("latchstring_sign_ins_total", {"result": "succeeded"}),
        ("latchstring_sign_ins_total", {"outcome": "success"}),
    ]:
        assert not exists(name, selectors)


def test_every_event_has_its_counter() -> None:
    """A new event is counted without anybody thinking of it."""

    def names(kind: type[events.Event]) -> Iterator[str]:
        for each in kind.__subclasses__():
            if each.__module__ == events.__name__:
                yield from names(each)
                if hasattr(each, "name"):
                    yield each.name

    assert set(names(events.Event)) == CATALOGUE[Metric.EVENTS].labels["event"]


def test_a_value_outside_its_list_is_other() -> None:
    """Whatever is passed, and however much or little of it."""
    described = CATALOGUE[Metric.SIGN_INS]
    assert described.checked(("pwd", "succeeded")) == ("pwd", "succeeded")
    assert described.checked(("ada@example.com", "succeeded")) == (OTHER, "succeeded")
    assert described.checked(("pwd",)) == ("pwd", OTHER)
    assert described.checked(("pwd", "limited", "203.0.113.7")) == ("pwd", "limited")
