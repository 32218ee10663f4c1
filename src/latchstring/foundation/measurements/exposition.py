"""The numbers as Prometheus reads them, and the ASGI application that returns them.

Alone in importing prometheus_client, and imported only by what serves `/metrics`: a worker that never does, does not
load it.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from latchstring.foundation.clock import Clock
from latchstring.foundation.measurements.catalogue import BUCKETS, CATALOGUE, Described, Kind
from latchstring.foundation.measurements.names import Metric
from latchstring.foundation.measurements.reading import Readings

_METHODS = ("GET", "HEAD")
_BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


class MetricsApp:
    """An ASGI application that responds with the numbers, in the text format or as OpenMetrics.

    Args:
        read: returns the numbers; it may block, and is called in a thread.
        clock: the clock that the workers' instants are by.
    """

    def __init__(self, read: Callable[[], Readings], clock: Clock) -> None:
        self._read = read
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to GET and HEAD, at whatever path this is mounted."""
        if scope["type"] == "http":
            await (await self._response(Request(scope)))(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        if request.method not in _METHODS:
            return PlainTextResponse("Method Not Allowed\n", 405, {"Allow": ", ".join(_METHODS)})
        try:
            readings = await asyncio.to_thread(self._read)
        except (OSError, TimeoutError):
            return PlainTextResponse("The metrics can't be read now.\n", 503, {"Retry-After": "1"})
        registry = CollectorRegistry()
        registry.register(_Readings(readings, self._clock))
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return Response(encode(registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})


class _Readings(Collector):
    """Readings as prometheus_client collects them."""

    def __init__(self, readings: Readings, clock: Clock) -> None:
        self._readings = readings
        self._clock = clock

    def collect(self) -> Iterator[Family]:
        found: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (name, *labels), values in sorted(self._readings.series.items()):
            found.setdefault(name, []).append((tuple(labels), values))
        found[Metric.WORKERS] = [((), [float(self._readings.workers)])]
        for metric, described in CATALOGUE.items():
            yield self._family(metric, described, found.get(metric, ()))

    def _family(
        self, metric: Metric, described: Described, series: Iterable[tuple[tuple[str, ...], list[float]]]
    ) -> Family:
        name, names = metric.value, list(described.labels)
        match described.kind:
            case Kind.HISTOGRAM:
                histogram = HistogramMetricFamily(name, described.meaning, labels=names)
                for labels, (*counts, total) in series:
                    buckets = list(zip(_BOUNDS, accumulate(counts), strict=True))
                    histogram.add_metric(labels, buckets, total)
                return histogram
            case Kind.COUNTER:
                counter = CounterMetricFamily(name.removesuffix("_total"), described.meaning, labels=names)
                for labels, (value,) in series:
                    counter.add_metric(labels, value)
                return counter
            case _:
                gauge = GaugeMetricFamily(name, described.meaning, labels=names)
                for labels, (value,) in series:
                    shown = self._shown(described.kind, value)
                    if shown is not None:
                        gauge.add_metric(labels, shown)
                return gauge

    def _shown(self, kind: Kind, value: float) -> float | None:
        if math.isnan(value):
            return None
        if kind not in {Kind.AGE, Kind.AGE_BY_DATE}:
            return value
        # Reckoned here and not by the worker: the age that a worker which hangs would report stands still.
        now = self._clock.uptime() if kind is Kind.AGE else self._clock.now().timestamp()
        return max(0.0, now - value)
