"""The engine process, without a node around it."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from pathlib import Path

from moshivis_ros.engine.engine import Engine
from moshivis_ros.engine.events import EngineSettings, Event, Loaded, Spoken
from moshivis_ros.options import Options
from moshivis_ros.vision.refresh_policy import Settings

GREY = bytes(8 * 8 * 3)
VIEW = {"encoding": "rgb8", "height": 8, "width": 8, "step": 24, "is_bigendian": False}


def test_a_picture_of_the_last_conversation_is_not_looked_at(checkpoint: Path) -> None:
    events: queue.Queue[Event] = queue.Queue()
    engine = Engine(EngineSettings(str(checkpoint), Options(refresh=Settings(policy="manual"))), events.put)

    def show(stamp: int) -> None:
        engine.show(memoryview(GREY), stamp=stamp, frame_id="camera", **VIEW)

    def frames(number: int) -> list[Spoken]:
        found: list[Spoken] = []
        while len(found) < number:
            event = events.get(timeout=60)
            if isinstance(event, Spoken):
                found.append(event)
        return found

    try:
        assert engine.wait_until_loaded(60)
        engine.start(0)
        frames(1)
        engine.stop()
        time.sleep(0.5)  # it ends the frame that it was in, looks once more, and tells nobody
        show(stamp=1)
        engine.start(0)
        engine.refresh()
        assert not any(frame.sight.has_image for frame in frames(8))
        show(stamp=2)
        while not (sight := frames(1)[0].sight).has_image:
            pass
        assert sight.stamp == 2
    finally:
        engine.close()


def test_only_the_steps_have_a_realtime_priority(checkpoint: Path) -> None:
    """Not the thread that encodes pictures, which the steps start. Where the system allows none, it is said."""
    events: queue.Queue[Event] = queue.Queue()
    engine = Engine(EngineSettings(str(checkpoint), realtime_priority=3), events.put)
    try:
        assert engine.wait_until_loaded(60)
        while not isinstance(loaded := events.get(timeout=1), Loaded):
            pass
        assert loaded.realtime_priority == (3 if realtime_is_allowed() else 0)
        engine.start(0)
        while not (isinstance(event := events.get(timeout=60), Spoken) and event.sight.has_image):
            engine.show(memoryview(GREY), stamp=1, frame_id="camera", **VIEW)
            engine.refresh()
        tasks = (Path("/proc") / str(engine._process.pid) / "task").iterdir()
        of_thread = {int(task.name): os.sched_getparam(int(task.name)).sched_priority for task in tasks}
        # the main thread makes the steps
        assert of_thread.pop(engine._process.pid) == loaded.realtime_priority
        assert of_thread and set(of_thread.values()) == {0}
    finally:
        engine.close()


def realtime_is_allowed() -> bool:
    attempt = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))"
    return subprocess.run([sys.executable, "-c", attempt], stderr=subprocess.DEVNULL).returncode == 0
