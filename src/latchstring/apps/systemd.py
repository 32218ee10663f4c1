"""Tell the service manager how the server is: systemd's notification protocol, `sd_notify(3)`."""

import logging
import socket

from latchstring.apps.environment import notify_socket

READY = "READY=1"
STOPPING = "STOPPING=1"
_TIMEOUT_SECONDS = 1.0
_log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send `state` to the socket that `NOTIFY_SOCKET` names; do nothing if it names none.

    A failure is logged, and never stops the server.
    """
    path = notify_socket()
    if path is None:
        return
    # A name that begins with `@` is in Linux's abstract namespace, written with a NUL there.
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_TIMEOUT_SECONDS)
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        _log.warning(
            "The service manager could not be told %s: %s.",
            state,
            error.strerror or "no response",
            extra={"event": "systemd.notify_failed", "cause": type(error).__name__},
        )
