"""The conversation in a process of its own, as the talk node sees it.

    engine = Engine(settings, on_event)     # starts the process, which loads the model
    engine.wait_until_loaded(5.0)
    engine.start(now)                       # from here on_event gets a Spoken every 80 ms
    engine.hear(...); engine.show(...)      # return at once
    engine.stop(); engine.start(later)      # a new conversation with the same model
    engine.close()                          # the process ends, its memory is free

A process, because ROS callbacks hold Python's lock (12 ms of every 33 with a 1080p camera) and would delay
the model's frames; and because a process that ends gives a GPU back, also when it crashes. One that dies is started
again, and has the picture that the old one saw. Sound, commands and events go through a socket, pictures through a
PictureSlot. The other side is process.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from moshivis_ros.engine.events import Ended, EngineSettings, Event, Loaded, Loading, Spoken
from moshivis_ros.engine.picture_slot import PictureSlot
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.options import Options

END_SECONDS = 2.0  # given to the process to end by itself
RESTART_MEMORY = 600.0  # seconds after which a death does not count any more
MOST_WAITING = 1000  # messages of sound on their way to the process: 5 s of 5 ms, while this computer is busy
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0  # seconds before it is started again; doubled from death to death


class EngineError(MoshiVisError):
    """The engine process could not load the model, or ended."""


class Engine:
    """See above. `on_event` is called from a thread of the engine's own, never after close()."""

    def __init__(self, settings: EngineSettings, on_event: Callable[[Event], None]) -> None:
        self._settings = settings
        self._on_event = on_event
        self._run = 0
        self._running = threading.RLock()  # held while an event is handed over or the run changes
        self._talking = self._frozen = False
        self._closing = threading.Event()
        self._loaded = threading.Event()
        self._failure: str | None = None
        self._deaths: list[float] = []
        self.dropped = 0  # messages that no process took
        self._newest: deque[tuple[dict[str, Any], memoryview]] = deque(maxlen=1)  # picture, not yet copied
        self._slot, self._seen = PictureSlot(), PictureSlot()
        self._outbox: deque[tuple[Any, ...]] = deque()  # commands: whoever gives one does not wait for the process
        self._sounds = 0  # of them messages of sound
        self._posting = threading.Condition()  # held while the outbox or the pipe changes
        self._writing = threading.Lock()  # held while the pipe is written to, or closed
        self._launch()
        self._threads = [
            threading.Thread(target=work, name=f"engine {work.__name__}", daemon=True)
            for work in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    def wait_until_loaded(self, timeout: float) -> bool:
        """False: not yet. Raises EngineError when it never will be."""
        if self._loaded.wait(timeout) and self._failure:
            raise EngineError(self._failure)
        return self._loaded.is_set()

    @property
    def alive(self) -> bool:
        """It talks when it is told to, now or when it is started again."""
        return self._failure is None

    @property
    def resident_mb(self) -> float:
        """Memory of the process, MB; 0 while there is none."""
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
        """Sound, as AudioQueue.put() takes it. Dropped and counted where the process does not take it in time."""
        with self._posting:
            if self._sounds >= MOST_WAITING:
                self.dropped += 1
                return
            self._sounds += 1
            self._send("hear", data, fields)

    def tick(self, now: int) -> None:
        """The simulated clock, nanoseconds."""
        self._send("tick", now)

    def jump(self, now: int) -> None:
        """It has jumped, back or far."""
        self._send("jump", now)

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
        self._frozen = frozen
        self._send("freeze", frozen)

    def say(self, number: int, text: str, interrupt: str, uninterruptible: bool) -> None:
        """A goal, by a number that Progress tells of: see Conversation.say()."""
        self._send("serve", "say", number, text, interrupt, uninterruptible)

    def ask(self, number: int, text: str, alone: bool, voice_command: str) -> None:
        """The same: see Conversation.ask()."""
        self._send("serve", "ask", number, text, alone, voice_command)

    def cancel(self, number: int) -> None:
        self._send("serve", "cancel", number)

    def sleep(self, asleep: bool, now: int) -> None:
        """Until the next sleep(False) or start() no steps are made, and nothing is heard. `now`: as for start()."""
        self._send("sleep", asleep, now)

    def tune(self, options: Options, new_seed: bool) -> None:
        """New sampling, refresh settings, image size and (if told) seed, now and for every process that follows."""
        self._settings = replace(self._settings, options=options)
        self._send("serve", "tune", options, new_seed)

    def close(self) -> None:
        """End the process and wait until its memory is free."""
        with self._running:
            closed, self._talking = self._closing.is_set(), False
            self._closing.set()
        if closed:
            return
        with self._posting:
            if not self._pipe.closed:  # shutdown, not close: the threads are using the descriptor
                with socket.socket(fileno=os.dup(self._pipe.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)
            self._posting.notify()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()
        for slot in (self._slot, self._seen):
            slot.close()

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        inherited = (theirs.fileno(), self._slot.descriptor, self._seen.descriptor)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from moshivis_ros.engine.process import main; main()"]
                + [str(descriptor) for descriptor in inherited],
                pass_fds=inherited,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C in the terminal is for the node, which then ends the engine
            )
        with self._posting:
            self.dropped += self._sounds  # while there was no process
            self._sounds = 0
            self._outbox.clear()
            self._pipe = Connection(ours.detach())
            self._pipe.send(self._settings)
            self._send("freeze", self._frozen)

    def _send(self, *command: Any) -> None:
        with self._posting:
            self._outbox.append(command)
            self._posting.notify()

    def _write(self) -> None:
        """Commands to one process after the other."""
        while True:
            with self._posting:
                self._posting.wait_for(lambda: self._closing.is_set() or (self._outbox and not self._pipe.closed))
                if self._closing.is_set():
                    return
                command, pipe = self._outbox.popleft(), self._pipe
                self._sounds -= command[0] == "hear"
            with self._writing:
                try:
                    pipe.send(command)
                except OSError:
                    pass  # the process is gone: the reader sees it, and says so

    def _read(self) -> None:
        """Events of one process after the other."""
        while True:
            try:
                while True:
                    self._handle(self._pipe.recv())
            except (EOFError, OSError):
                with self._writing, self._posting:
                    self._pipe.close()
            if self._closing.is_set() or not self._revive():
                return

    def _revive(self) -> bool:
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        reason = self._failure or f"the engine process {how}; what it wrote is above"
        now = time.monotonic()
        self._deaths = [death for death in self._deaths if now - death < RESTART_MEMORY] + [now]
        again = self._loaded.is_set() and len(self._deaths) <= self._settings.restarts
        self._failure = None if again else reason
        if self._loaded.is_set():
            self._on_event(Ended(reason, again))
        self._loaded.set()
        backoff = min(FIRST_BACKOFF * 2 ** (len(self._deaths) - 1), LONGEST_BACKOFF)
        if not again or self._closing.wait(backoff):
            return False
        with self._running:  # a process that nobody could end must not be started
            if not self._closing.is_set():
                self._launch()
        return not self._closing.is_set()

    def _handle(self, event: Event | str) -> None:
        if isinstance(event, str):  # why the process is about to end
            self._failure = event
            return
        if isinstance(event, Spoken) and self._newest:
            self._slot.put(*self._newest.pop())
        if isinstance(event, Loading) and self._loaded.is_set():
            return  # started again: nobody waits for it
        with self._running:
            current = not isinstance(event, Spoken) or (self._talking and event.run == self._run)
            if current and not self._closing.is_set():
                self._on_event(event)
        if isinstance(event, Loaded):
            self._loaded.set()
