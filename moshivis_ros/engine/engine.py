"""The conversation in a process of its own, as the talk node sees it.

    engine = Engine(settings, on_event)     # starts the process, which loads the model
    engine.wait_until_loaded(5.0)
    engine.start(now)                       # from here on_event gets a Spoken every 80 ms
    engine.hear(...); engine.show(...)      # return at once
    engine.stop(); engine.start(later)      # a new conversation with the same model
    engine.close()                          # the process ends, its memory is free

A process, because ROS callbacks hold Python's lock (12 ms of every 33 with a 1080p camera) and would delay
the model's frames; and because a process that ends gives a GPU back, also when it crashes. Sound, commands
and events go through a socket, pictures through a PictureSlot. The other side is process.py.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from moshivis_ros.engine.events import Ended, EngineSettings, Event, Loaded, Spoken
from moshivis_ros.engine.picture_slot import PictureSlot
from moshivis_ros.errors import MoshiVisError

END_SECONDS = 2.0  # given to the process to end by itself


class EngineError(MoshiVisError):
    """The engine process could not load the model, or ended."""


class Engine:
    """See above. `on_event` is called from a thread of the engine's own, never after close()."""

    def __init__(self, settings: EngineSettings, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._run = 0
        self._running = threading.Lock()  # held while an event is handed over or the run changes
        self._talking = self._closing = False
        self._loaded = threading.Event()
        self._failure: str | None = None
        self.dropped = 0  # messages that the process did not take
        self._newest: deque[tuple[dict[str, Any], memoryview]] = deque(maxlen=1)  # picture, not yet copied
        self._slot = PictureSlot()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from moshivis_ros.engine.process import main; main()"]
                + [str(theirs.fileno()), str(self._slot.descriptor)],
                pass_fds=[theirs.fileno(), self._slot.descriptor],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C in the terminal is for the node, which then ends the engine
            )
        self._pipe = Connection(ours.detach())
        self._pipe.send(settings)
        self._reader = threading.Thread(target=self._read, name="engine events", daemon=True)
        self._reader.start()

    def wait_until_loaded(self, timeout: float) -> bool:
        """False: not yet. Raises EngineError when it never will be."""
        if self._loaded.wait(timeout) and self._failure:
            raise EngineError(self._failure)
        return self._loaded.is_set()

    @property
    def alive(self) -> bool:
        return self._failure is None

    @property
    def resident_mb(self) -> float:
        """Memory of the process, MB; 0 once it is gone."""
        try:
            with open(f"/proc/{self._process.pid}/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
        except OSError:
            return 0.0

    def start(self, now: int) -> None:
        """Begin a conversation. `now`: nanoseconds, the stamp of silence that is fed before any sound comes."""
        with self._running:
            self._run += 1
            self._talking = True
        self._newest.clear()
        self._slot.take()  # a picture that the last conversation did not get to is no view of now
        self._send("start", self._run, now)

    def stop(self) -> None:
        """No event of this conversation comes after this returns."""
        with self._running:
            self._talking = False
        self._send("stop")

    def hear(self, data: bytes, **fields: Any) -> None:
        """Sound, as AudioInput.push() takes it. Dropped and counted where the process is too busy to take it."""
        if select.select([], [self._pipe], [], 0)[1]:
            self._send("hear", data, fields)
        else:
            self.dropped += 1

    def show(self, data: memoryview, **fields: Any) -> None:
        """A picture for vision.encodings, with `stamp` (nanoseconds) and `frame_id`. Replaces one not yet
        looked at. Not copied before the next frame: a camera may be faster, and copies slow the steps down.
        """
        self._newest.append((fields, data))

    def refresh(self) -> None:
        self._send("refresh")

    def reset(self) -> None:
        self._send("reset")

    def freeze(self, frozen: bool) -> None:
        self._send("freeze", frozen)

    def close(self) -> None:
        """End the process and wait until its memory is free."""
        self._closing = True
        with self._running:
            self._talking = False
        # shutdown, not close: the reader is using the descriptor.
        end = socket.socket(fileno=os.dup(self._pipe.fileno()))
        with end:
            end.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._pipe.close()
        self._slot.close()

    def _send(self, command: str, *arguments: Any) -> None:
        try:
            self._pipe.send((command, *arguments))
        except OSError:
            pass  # the process is gone: the reader has seen it and says so

    def _read(self) -> None:
        try:
            while True:
                self._handle(self._pipe.recv())
        except (EOFError, OSError):
            pass
        if self._closing:
            return
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        self._failure = self._failure or f"the engine process {how}; what it wrote is above"
        if self._loaded.is_set():
            self._on_event(Ended(self._failure))
        self._loaded.set()

    def _handle(self, event: Event | str) -> None:
        if isinstance(event, str):  # why the process is about to end
            self._failure = event
            return
        if isinstance(event, Spoken) and self._newest:
            self._slot.put(*self._newest.pop())
        with self._running:
            current = not isinstance(event, Spoken) or (self._talking and event.run == self._run)
            if current and not self._closing:
                self._on_event(event)
        if isinstance(event, Loaded):
            self._loaded.set()
