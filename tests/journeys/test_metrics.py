"""What the metrics say after what happened: every story over HTTP, counted once and under the right name."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from unittest.mock import patch

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy import exc

from latchstring import Auth, ConfigurationError, DatabaseUnavailableError, Settings
from latchstring.foundation.database.failures import Cause
from latchstring.foundation.measurements import Metric
from latchstring.foundation.measurements.catalogue import CATALOGUE
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE, WITH_PAGES
from tests.support.hashes import hashing, held_hashes
from tests.support.metrics import Samples, scraped, scraped_text
from tests.support.service import PASSWORD, SECRET, Service, credentials, quiet_service, registration

HOSTILE = "hostile-4711"


@pytest.fixture
async def service(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """One worker with limits and metrics."""
    changed = settings.model_copy(update={"limits": True, "metrics": True})
    async with quiet_service(changed, clock) as service:
        yield service


async def metrics_of(service: Service) -> Samples:
    """Returns what the worker's metrics say now."""
    await service.auth.drained()
    return await scraped(service.auth.metrics_app())


def labelled(samples: Samples, name: str) -> Mapping[str, float]:
    """Returns the samples of a metric that are not zero, by the values of their labels."""
    found = {key: value for key, value in samples.items() if key.partition("{")[0] == name and value}
    return {" ".join(re.findall(r'="([^"]*)"', key)): value for key, value in found.items()}


async def test_sign_ins_by_their_outcome(service: Service) -> None:
    """One for each attempt: at the JSON route and at the token endpoint alike."""
    browser = await service.registered()
    await browser.post("/api/auth/login", json=credentials())
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
    await service.browser().post("/api/auth/token", data=form)
    for _ in range(11):
        await service.browser().post("/api/auth/login", json=credentials(password="wrong password"))
    samples = await metrics_of(service)
    assert labelled(samples, "latchstring_sign_ins_total") == {
        "pwd succeeded": 2,
        "pwd wrong_credentials": 10,
        "pwd limited": 1,
    }
    assert labelled(samples, "latchstring_limits_hit_total") == {"account": 1}
    assert labelled(samples, "latchstring_events_total") == {
        "session.created": 3,
        "session.ended": 1,
        "sign_in.refused": 10,
        "user.registered": 1,
    }
    # A registration hashes as well, and the limited attempt does not. One thread or more, so nobody waits for ever.
    assert samples["latchstring_hash_seconds_count"] == samples["latchstring_hash_wait_seconds_count"] == 13
    assert samples["latchstring_hashes_pending"] == 0
    assert samples["latchstring_transaction_seconds_count"] > 13
    # From memory, within the second after: counted as well.
    await service.browser().post("/api/auth/login", json=credentials())
    assert labelled(await metrics_of(service), "latchstring_limits_hit_total") == {"account": 2}


async def test_refreshes_repeats_and_reuse(service: Service, clock: ManualClock) -> None:
    """Another tab's repeat is no reuse; a copy shown after the grace is."""
    ada = await service.registered()
    old = dict(ada.cookies)
    await ada.post("/api/auth/refresh")
    for agent in ("", "Mozilla/5.0 elsewhere"):
        tab = service.browser(headers={"User-Agent": agent} if agent else None)
        tab.cookies.update(old)
        await tab.post("/api/auth/refresh")
    clock.advance(seconds=60)
    thief = service.browser()
    thief.cookies.update(old)
    await thief.post("/api/auth/refresh")
    await ada.post("/api/auth/refresh")
    await service.browser().post("/api/auth/refresh", headers={"Authorization": "Bearer nonsense"})
    samples = await metrics_of(service)
    assert labelled(samples, "latchstring_refreshes_total") == {"succeeded": 3, "reused": 1, "ended": 1, "invalid": 1}
    assert labelled(samples, "latchstring_refresh_repeats_total") == {"same": 1, "elsewhere": 1}
    events = labelled(samples, "latchstring_events_total")
    assert (events["session.refresh_reused"], events["session.refresh_repeated_elsewhere"]) == (1, 1)


@ON_SQLITE
async def test_a_session_that_refreshes_too_often(settings: Settings, clock: ManualClock) -> None:
    """It is limited, and the limit has a name."""
    changed = settings.model_copy(update={"limits": True, "metrics": True})
    async with quiet_service(changed, clock) as service:
        ada = await service.registered()
        for _ in range(61):
            await ada.post("/api/auth/refresh")
        samples = await metrics_of(service)
    assert labelled(samples, "latchstring_refreshes_total") == {"succeeded": 60, "limited": 1}
    assert labelled(samples, "latchstring_limits_hit_total") == {"refresh": 1}


@ON_SQLITE
async def test_a_full_queue_of_hashes(settings: Settings, clock: ManualClock) -> None:
    """What is refused is counted, and what waits can be seen."""
    narrow = settings.model_copy(update={"metrics": True, "password_hash_threads": 1, "password_hash_queue": 0})
    async with quiet_service(narrow, clock) as service:
        hasher = service.auth.parts.tools.passwords
        with held_hashes():
            first = asyncio.create_task(hasher.hash(PASSWORD))
            await hashing(hasher)
            response = await service.browser().post("/api/auth/login", json=credentials())
            meanwhile = await metrics_of(service)
        await first
        samples = await metrics_of(service)
    assert response.status_code == 503
    assert meanwhile["latchstring_hashes_pending"] == 1
    assert samples["latchstring_hashes_pending"] == 0
    assert samples["latchstring_hashes_refused_total"] == 1
    assert labelled(samples, "latchstring_sign_ins_total") == {"pwd unavailable": 1}


async def test_the_feed_and_the_keys(service: Service, clock: ManualClock) -> None:
    """How old what the worker knows is, how much it holds, and how old the key is that signs."""
    async with service.auth.parts.core.feed.polling():
        ada = await service.registered()
        await ada.post("/api/auth/logout")
    clock.suspend(seconds=4)
    samples = await metrics_of(service)
    assert samples["latchstring_revocation_lag_seconds"] == pytest.approx(4)
    assert samples['latchstring_revocation_polls_total{outcome="succeeded"}'] >= 1
    assert samples["latchstring_revocation_poll_seconds_count"] >= 1
    assert samples['latchstring_key_age_seconds{state="active"}'] >= 0
    async with service.auth.parts.core.feed.polling():
        pass
    assert (await metrics_of(service))['latchstring_revocation_entries{subject="session"}'] == 1


@WITH_PAGES
@ON_SQLITE
async def test_requests_by_their_template(service: Service) -> None:
    """Never by the path that was asked for; JSON routes and pages, refusals and unknown paths."""
    ada = await service.registered()
    await ada.get("/api/auth/me")
    await ada.delete(f"/api/auth/sessions/{HOSTILE}")
    await ada.get(f"/api/auth/{HOSTILE}")
    await ada.get(f"/sign-in?next={HOSTILE}")
    await ada.post("/api/auth/refresh", headers={"Origin": f"https://{HOSTILE}.example"})
    text = await scraped_text(service.auth.metrics_app())
    assert HOSTILE not in text
    samples = await metrics_of(service)
    responses = labelled(samples, "latchstring_http_responses_total")
    assert responses == {
        "POST /register 2xx": 1,
        "GET /me 2xx": 1,
        "DELETE /sessions/{session_id} 4xx": 1,
        "GET /sign-in 4xx": 1,
        "POST /refresh 4xx": 1,
    }
    assert samples['latchstring_http_request_seconds_count{method="GET",route="/me"}'] == 1


async def test_hostile_values_reach_no_label(service: Service) -> None:
    """Every field, header and parameter that a client can fill, at every route: none of it is in /metrics."""
    marks = [f"{HOSTILE}-{number}" for number in range(20)]
    mark = iter(marks)
    headers = {
        "User-Agent": next(mark),
        "X-Request-ID": next(mark),
        "X-Forwarded-For": "203.0.113.77",
        "Referer": f"https://{next(mark)}.example",
        "traceparent": next(mark),
    }
    browser = service.browser(headers=headers)
    email, secret = f"{next(mark)}@example.com", next(mark)
    names = {"first_name": next(mark), "last_name": next(mark)}
    await browser.post(
        f"/api/auth/register?x={next(mark)}",
        json=registration(email, password=secret, passwordConfirm=secret, **names),
    )
    sent = [email, secret, "203.0.113.77", "ada@example.com", *marks, *browser.cookies.values()]
    await browser.patch("/api/auth/me", json=names)
    await browser.post("/api/auth/login", json=credentials(email, next(mark)))
    await browser.post("/api/auth/login", json=credentials(next(mark), secret))
    await browser.post("/api/auth/confirm", json={"password": next(mark)})
    await browser.post("/api/auth/token", data={"grant_type": next(mark), "client_id": next(mark)})
    await browser.post("/api/auth/refresh", headers={"Authorization": f"Bearer {next(mark)}"})
    await browser.request(f"X{HOSTILE}", "/api/auth/me")
    await browser.post(f"/api/auth/{next(mark)}/%00%22%7D%0a")
    await browser.delete(f"/api/auth/sessions/{next(mark)}")
    sessions = (await browser.get("/api/auth/sessions")).json()
    user = (await browser.get("/api/auth/me")).json()
    await browser.post("/api/auth/logout")
    await service.auth.drained()
    sent += [user["id"], *(session["id"] for session in sessions)]
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(service.auth.metrics_app()), base_url="http://metrics"
        ) as scraper:
            text = (await scraper.get("/", headers={"Accept": accept})).text
        assert len(text) > 1000
        assert [value for value in sent if value in text] == []


async def test_database_errors_by_kind(service: Service) -> None:
    """Each failure that a request would get 503 for; the kinds are the causes of the log."""
    database = service.auth.parts.tools.database
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            async with database.reading() as connection:
                await connection.execute(sa.text("SELECT 1 FROM latchstring_nowhere"))
    with pytest.raises(exc.DBAPIError):
        async with database.transaction() as connection:
            await connection.execute(sa.text("INSERT INTO latchstring_users (id) VALUES (NULL)"))
    assert labelled(await metrics_of(service), "latchstring_database_errors_total") == {"no_tables": 2}


def test_every_cause_is_a_kind() -> None:
    """One that is not in the catalogue would be counted as `other`."""
    assert CATALOGUE[Metric.DATABASE_ERRORS].labels["kind"] == {cause.value for cause in Cause} - {"other"}


async def test_an_application_serves_its_own(tmp_path: Path) -> None:
    """Mounted behind a guard: a visitor gets no numbers, an operator does."""
    settings = Settings(metrics=True, password_hash_memory_kib=8, password_hash_passes=1)
    auth = Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET, settings=settings)
    app = FastAPI()
    auth.install(app)
    app.mount("/metrics", auth.protect(auth.metrics_app(), role="operator"))
    app.mount("/open-metrics", auth.metrics_app())
    transport = httpx2.ASGITransport(app)
    async with auth.running(), httpx2.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        assert (await browser.get("/metrics/")).status_code == 401
        await browser.post("/auth/register", json=registration())
        assert (await browser.get("/metrics/")).status_code == 403
        assert (await scraped(app, "/open-metrics/"))['latchstring_events_total{event="user.registered"}'] == 1


async def test_an_application_without_metrics_says_how_to_switch_them_on(tmp_path: Path) -> None:
    """And without the extra, what to install: when the Auth is made."""
    auth = Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET)
    with pytest.raises(ConfigurationError, match="metrics=True"):
        auth.metrics_app()
    with (
        patch.dict("sys.modules", {"prometheus_client": None}),
        pytest.raises(ConfigurationError, match=r"pip install 'latchstring\[metrics\]'"),
    ):
        Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET, settings=Settings(metrics=True))
