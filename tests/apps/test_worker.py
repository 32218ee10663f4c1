"""T15: a worker answers its parent by its event loop, and not beside it."""

import asyncio
import threading
from multiprocessing import Pipe

from latchstring.apps.worker import DRAIN, PING, PONG, STOP, obey
from tests.support.connected import Serving, serving
from tests.support.hang import HANG_SECONDS, until


async def test_a_worker_whose_event_loop_is_blocked_does_not_answer() -> None:
    """It serves nobody. uvicorn's own check is answered by a thread, and so would never find it."""
    ours, theirs = Pipe()
    async with serving() as served:
        thread = threading.Thread(target=obey, args=(served.server, theirs), daemon=True)
        thread.start()
        ours.send_bytes(PING)
        # This waits on the loop, which can't answer meanwhile.
        assert not ours.poll(0.2)
        assert await asyncio.to_thread(ours.poll, HANG_SECONDS)
        assert ours.recv_bytes() == PONG
        ours.send_bytes(STOP)
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.shield(served.running)


async def test_the_parents_word_to_drain_is_about_the_whole_server() -> None:
    """The worker then closes the port for all of them; alone it leaves it to the others."""
    ours, theirs = Pipe()
    async with serving(drain_seconds=HANG_SECONDS, closes_port=False) as served:
        threading.Thread(target=obey, args=(served.server, theirs), daemon=True).start()
        ours.send_bytes(DRAIN)
        await until(lambda: served.server.lifespan.state)
        assert served.server.closes_port
        assert is_serving(served)


def is_serving(served: Serving) -> bool:
    return not served.running.done()
