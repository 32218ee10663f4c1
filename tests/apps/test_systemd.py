"""`sd_notify(3)`, by a real datagram socket."""

import logging
import socket
import sys
from pathlib import Path

import pytest

from latchstring.apps.systemd import READY, STOPPING, notify
from tests.support.hang import HANG_SECONDS


@pytest.mark.parametrize(
    "name",
    [
        "path",
        pytest.param(
            "abstract", marks=pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
        ),
    ],
)
def test_the_service_manager_hears_each_state(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a path, and in the abstract namespace, which systemd writes with `@`."""
    path = str(tmp_path / "notify")
    given = path if name == "path" else f"@{path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path if name == "path" else f"\0{path}")
        manager.settimeout(HANG_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", given)
        notify(READY)
        notify(STOPPING)
        assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_without_a_service_manager_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The usual case."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY)
    assert caplog.records == []


@pytest.mark.parametrize("given", ["/nowhere/at/all", "@", "vsock:2:1", "/" + "x" * 200])
def test_a_socket_that_does_not_work_is_logged(
    given: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server goes on."""
    monkeypatch.setenv("NOTIFY_SOCKET", given)
    with caplog.at_level(logging.WARNING):
        notify(READY)
    (record,) = caplog.records
    assert record.__dict__["event"] == "systemd.notify_failed"
