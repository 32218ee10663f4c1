"""`/metrics`: what Prometheus reads, in both of its formats."""

import fcntl
from pathlib import Path

import httpx2
import pytest

from latchstring.foundation.measurements import Metric, reading
from latchstring.foundation.measurements.exposition import MetricsApp
from latchstring.foundation.measurements.recorder import Recorder
from latchstring.testing import ManualClock
from tests.support.metrics import samples_of, scraped, scraped_text


def browser_of(app: MetricsApp) -> httpx2.AsyncClient:
    """Returns a client of `/metrics`."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://metrics")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_counters_and_histograms(clock: ManualClock) -> None:
    """As Prometheus counts them: buckets hold everything below their bound."""
    recorder = Recorder(None)
    recorder.count(Metric.SIGN_INS, "pwd", "limited")
    for seconds in (0.003, 0.2, 99.0):
        recorder.observe(Metric.HASH, seconds)
    samples = await scraped(MetricsApp(recorder.read, clock))
    assert samples['latchstring_sign_ins_total{method="pwd",outcome="limited"}'] == 1
    assert samples['latchstring_sign_ins_total{method="pwd",outcome="succeeded"}'] == 0
    assert samples['latchstring_hash_seconds_bucket{le="0.005"}'] == 1
    assert samples['latchstring_hash_seconds_bucket{le="10.0"}'] == 2
    assert samples['latchstring_hash_seconds_bucket{le="+Inf"}'] == samples["latchstring_hash_seconds_count"] == 3
    assert samples["latchstring_hash_seconds_sum"] == pytest.approx(99.203)
    assert samples["latchstring_workers"] == 1


async def test_ages_grow_while_nobody_reports(clock: ManualClock) -> None:
    """A worker that hangs reports nothing; its lag is reckoned by the one who asks."""
    recorder = Recorder(None)
    app = MetricsApp(recorder.read, clock)
    assert "latchstring_revocation_lag_seconds" not in await scraped(app), "unknown is not zero"
    recorder.gauge(Metric.REVOCATION_LAG, clock.uptime())
    recorder.gauge(Metric.KEY_AGE, clock.now().timestamp() - 60, "active")
    clock.suspend(seconds=7)
    samples = await scraped(app)
    assert samples["latchstring_revocation_lag_seconds"] == pytest.approx(7)
    assert samples['latchstring_key_age_seconds{state="active"}'] == pytest.approx(67)
    assert 'latchstring_key_age_seconds{state="retired"}' not in samples
    clock.advance(seconds=-3600)
    assert (await scraped(app))['latchstring_key_age_seconds{state="active"}'] == 0, "a clock that was set back"


async def test_every_metric_says_what_it_is(clock: ManualClock) -> None:
    """Those without a series too."""
    text = await scraped_text(MetricsApp(Recorder(None).read, clock))
    for metric in Metric:
        assert f"# HELP {metric} " in text
        assert f"# TYPE {metric} " in text


async def test_both_formats(clock: ManualClock) -> None:
    """OpenMetrics for those who ask for it, as Prometheus does; neither is kept by a cache."""
    async with browser_of(MetricsApp(Recorder(None).read, clock)) as browser:
        plain = await browser.get("/")
        modern = await browser.get("/", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        head = await browser.head("/")
        odd = await browser.get("/", headers={"Accept": "application/openmetrics-text; version=abc"})
    assert (odd.status_code, odd.text) == (200, plain.text)
    assert plain.headers["content-type"].startswith("text/plain")
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    assert plain.headers["cache-control"] == "no-store"
    assert head.status_code == 200
    assert samples_of(plain.text)["latchstring_workers"] == 1


async def test_only_reading(clock: ManualClock) -> None:
    """There is nothing to post to."""
    async with browser_of(MetricsApp(Recorder(None).read, clock)) as browser:
        response = await browser.post("/")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_a_reader_that_was_stopped_holds_up_no_other(
    clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 after two seconds, and all is well again when it goes on."""
    monkeypatch.setattr(reading, "_TRIES", 2)
    recorder = Recorder(tmp_path)
    async with browser_of(MetricsApp(recorder.read, clock)) as browser:
        with (tmp_path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            response = await browser.get("/")
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert (await browser.get("/")).status_code == 200


async def test_a_directory_that_can_not_be_read_is_503(clock: ManualClock, tmp_path: Path) -> None:
    """And no traceback with its path."""
    (tmp_path / "file").touch()
    async with browser_of(MetricsApp(Recorder(tmp_path / "file").read, clock)) as browser:
        response = await browser.get("/")
    assert response.status_code == 503
    assert str(tmp_path) not in response.text
