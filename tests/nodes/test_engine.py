"""The engine process, without a node around it."""

from __future__ import annotations

import queue
import time
from pathlib import Path

from moshivis_ros.nodes.engine import Engine, EngineSettings, Event, Loaded, Spoken
from moshivis_ros.vision.refresh_policy import Settings

GREY = bytes(8 * 8 * 3)


def test_a_picture_of_the_last_conversation_is_not_looked_at(checkpoint: Path) -> None:
    events: queue.Queue[Event] = queue.Queue()
    engine = Engine(EngineSettings(str(checkpoint), refresh=Settings(policy="manual")), events.put)

    def show(stamp: int) -> None:
        view = {"encoding": "rgb8", "height": 8, "width": 8, "step": 24, "is_bigendian": False}
        engine.show(memoryview(GREY), stamp=stamp, frame_id="camera", **view)

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


def test_the_steps_have_the_niceness_that_was_asked_for(checkpoint: Path) -> None:
    events: queue.Queue[Event] = queue.Queue()
    engine = Engine(EngineSettings(str(checkpoint), niceness=7), events.put)
    try:
        assert engine.wait_until_loaded(60)
        loaded = events.get(timeout=1)
        assert isinstance(loaded, Loaded) and loaded.niceness == 7
        process = Path("/proc") / str(engine._process.pid)
        of_thread = {int(task.name): nice(task) for task in (process / "task").iterdir()}
        assert of_thread.pop(engine._process.pid) == 7  # the main thread makes the steps
        assert of_thread and nice(Path("/proc/self")) in of_thread.values()
    finally:
        engine.close()


def nice(task: Path) -> int:
    return int((task / "stat").read_text().rsplit(")", 1)[1].split()[16])
