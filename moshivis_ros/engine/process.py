"""The engine process: loads a Conversation and runs it, frame by frame. See engine.py for the other side. No
ROS.

Three threads: main steps the conversation, paced by the sound; one reads commands; one decodes pictures. The
process ends when its pipe does, so that nothing is left running however the node ended.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from moshivis_ros.audio.pcm import encode
from moshivis_ros.engine.audio_queue import AudioQueue
from moshivis_ros.engine.events import (
    Asleep,
    EngineSettings,
    Event,
    Loaded,
    Loading,
    Spoken,
    Trouble,
    sight_of,
)
from moshivis_ros.engine.picture_slot import PictureSlot
from moshivis_ros.errors import AudioError, ImageError, MoshiVisError
from moshivis_ros.transcript import Transcript
from moshivis_ros.vision import encoded, encodings
from moshivis_ros.vision.image_cache import Picture

MEMORY_EVERY = 12  # frames
QUIET_PEAK = 0.01  # of full scale: the robot is not speaking


def main() -> None:
    descriptors = [int(text) for text in sys.argv[1:]]
    pipe, slot, seen = Connection(descriptors[0]), PictureSlot(descriptors[1]), PictureSlot(descriptors[2])
    settings = pipe.recv()
    threading.excepthook = _crash
    try:
        EngineProcess(pipe, slot, seen, settings).run()
    except MoshiVisError as error:
        pipe.send(str(error))
    except Exception as error:
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {error}")
    finally:
        sys.stderr.flush()
        os._exit(1)  # at once: threads of libraries must not keep a broken engine alive


class EngineProcess:
    """`slot`: pictures to look at; `seen`: the one in the cache, for the process that comes after this one."""

    def __init__(
        self, pipe: Connection, slot: PictureSlot, seen: PictureSlot, settings: EngineSettings
    ) -> None:
        self._pipe, self._slot, self._seen = pipe, slot, seen
        self._sending = threading.Lock()
        self._queue = AudioQueue(settings.max_backlog, simulated=settings.simulated_time)
        self._run = 0  # the number of the current conversation; 0: none
        self._begin = threading.Event()
        self._reset = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._stepped = threading.Event()
        self._served: Any = None  # like the conversation, with torch
        self._serving = threading.Lock()
        self._early: list[tuple[str, tuple[Any, ...]]] = []  # to be served once there is a conversation
        self._pictures_refused = 0
        self._frozen = False
        self._conversation: Any = None
        for work in (self._obey, self._look):  # before _load: they do not get the priority of the steps
            threading.Thread(target=work, daemon=True).start()
        self._conversation = self._load(settings)
        self._conversation.freeze(self._frozen)

    def run(self) -> None:
        while True:
            self._begin.wait()
            self._begin.clear()
            run = self._run
            if run:
                self._talk(run)

    def _load(self, settings: EngineSettings) -> Any:
        start = time.monotonic()
        self._send(Loading("loading PyTorch"))
        import torch

        from moshivis_ros.conversation import Conversation
        from moshivis_ros.engine.served import Served
        from moshivis_ros.model.checkpoint import resolve
        from moshivis_ros.model.device import find_device

        options = settings.options
        self._send(Loading(f"finding {settings.model}, or downloading it"))
        path = resolve(settings.model, options.revision, find_device(options.device), options.smallest_window)
        files = path.iterdir() if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files if file.is_file())
        self._send(Loading(f"reading {size / 1e6:.0f} MB of weights, and first steps with them"))
        try:
            conversation = Conversation.load(path, options, revision=None)
        except torch.OutOfMemoryError as error:
            raise MoshiVisError(f"{settings.model} does not fit the memory of the GPU: {error}") from error
        if "OMP_NUM_THREADS" not in os.environ:
            # A step is a thousand small operations: what threads would share of each costs more than it saves, and
            # all wait whenever another program, such as the camera's driver, has taken the core of one.
            torch.set_num_threads(1)
        if (seen := self._seen.newest()) is not None:
            self._see_again(conversation, *seen)
        seconds, config = time.monotonic() - start, conversation.config
        choice = conversation.choice
        quantized = choice.quantize or config.quantize or ""
        priority = _set_realtime_priority(settings.realtime_priority)
        with self._serving:
            self._served = Served(conversation, self._send)
            for command, arguments in self._early:
                getattr(self._served, command)(*arguments)
        sizes = config.siglip.patch_size, conversation.image_size
        about = config.about
        self._send(
            Loaded(seconds, str(conversation.device), not config.trained, quantized, choice.reason, about, priority, sizes)
        )
        return conversation

    def _talk(self, run: int) -> None:
        """One conversation, until stop() or the next start()."""
        self._conversation.reset()
        transcript = Transcript()
        memory = _memory(self._conversation.device)
        kept = self._conversation.image_in_cache
        quiet = True
        while self._run == run:
            stamp, sound = self._queue.get(quiet)
            if not self._awake.is_set():
                self._send(Asleep())
                self._awake.wait()
                transcript.finish()
                continue
            if self._reset.is_set():
                self._reset.clear()
                self._conversation.reset()
                transcript = Transcript()
            start = time.perf_counter()
            frame = self._conversation.step(sound)
            milliseconds = 1000 * (time.perf_counter() - start)
            quiet = not frame.text and float(np.abs(frame.pcm).max()) < QUIET_PEAK
            if kept is not (kept := self._conversation.image_in_cache):
                self._keep(kept)  # before the node tells of it
            if frame.index % MEMORY_EVERY == 0:
                memory = _memory(self._conversation.device)
            spoken = Spoken(
                run=run,
                index=frame.index,
                stamp=stamp,
                samples=encode(frame.pcm).tobytes(),
                gate=frame.gate,
                gate_normalised=frame.gate_normalised,
                gate_per_layer=frame.gate_per_layer.tolist(),
                text=transcript.add(frame),
                sight=sight_of(frame.image),
                milliseconds=milliseconds,
                renewals=self._conversation.renewal.count,
                counts={**self._queue.counts, "pictures refused": self._pictures_refused},
                memory=memory,
                cut=frame.cut,
            )
            self._send(spoken)
            self._served.tell()
            self._stepped.set()

    def _look(self) -> None:
        """Decode the newest picture, at most one a frame, and show it to the conversation."""
        while True:
            self._stepped.wait()
            self._stepped.clear()
            run = self._run
            if (entry := self._slot.take()) is None:
                continue
            fields, data = entry
            origin = fields.pop("stamp"), fields.pop("frame_id")
            try:
                if "encoding" in fields:
                    picture = encodings.decode(data, **fields)
                else:
                    picture = encoded.decode_compressed(data, **fields)
                if run == self._run:
                    self._conversation.watch(picture, stamp=origin)
            except ImageError as error:
                self._pictures_refused += 1
                self._send(Trouble(f"a picture was refused: {error}"))

    def _keep(self, picture: Picture | None) -> None:
        if picture is not None:
            image = np.ascontiguousarray(picture.image)
            self._seen.put({"shape": image.shape, "stamp": picture.stamp}, image.data.cast("B"))

    def _see_again(self, conversation: Any, fields: dict[str, Any], data: bytearray) -> None:
        """What the process before this one saw."""
        picture = np.frombuffer(data, np.uint8).reshape(fields["shape"])
        conversation.see(picture, wait=True, stamp=fields["stamp"])

    def _obey(self) -> None:
        """Commands of the node: each is a method of this class by its name."""
        try:
            while True:
                command, *arguments = self._pipe.recv()
                getattr(self, f"on_{command}")(*arguments)
        except (EOFError, OSError):
            os._exit(0)  # the node is gone, or wants this process to go

    def on_start(self, run: int, now: int) -> None:
        self._queue.start(now)
        self._run = run
        self._awake.set()
        self._begin.set()

    def on_stop(self) -> None:
        self._run = 0
        self._awake.set()

    def on_hear(self, data: bytes, fields: dict[str, Any]) -> None:
        if not self._awake.is_set():
            return
        try:
            self._queue.put(data, **fields)
        except AudioError as error:
            self._send(Trouble(f"sound was refused: {error}"))

    def on_tick(self, now: int) -> None:
        self._queue.tick(now)

    def on_jump(self, now: int) -> None:
        self._queue.jump(now)

    def on_serve(self, command: str, *arguments: Any) -> None:
        """What other software wants: see served.py."""
        with self._serving:
            if self._served is None:
                self._early.append((command, arguments))
            else:
                getattr(self._served, command)(*arguments)

    def on_sleep(self, asleep: bool, now: int) -> None:
        if asleep:
            self._awake.clear()
        elif not self._awake.is_set():
            self._queue.start(now)
            self._awake.set()

    def on_refresh(self) -> None:
        if self._conversation is not None:
            self._conversation.refresh()

    def on_reset(self) -> None:
        self._reset.set()

    def on_freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        if self._conversation is not None:
            self._conversation.freeze(frozen)

    def _send(self, event: Event) -> None:
        with self._sending:
            try:
                self._pipe.send(event)
            except OSError:
                os._exit(0)  # the node is gone, or wants this process to go


def _set_realtime_priority(wanted: int) -> int:
    """Schedule this thread, and not what it starts (the image encoder), before all programs without such a priority.

    Returns what the system allowed. Niceness would not do: with it, other programs still interrupt a step that is
    running.
    """
    thread = threading.get_native_id()
    if wanted:
        try:
            os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(wanted))
        except PermissionError:  # for root, or with a limit for rtprio in limits.conf
            pass
    return os.sched_getparam(thread).sched_priority


def _crash(failure: threading.ExceptHookArgs) -> None:
    """An engine that lost one of its threads must not look alive."""
    traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    sys.stderr.flush()
    os._exit(1)


def _memory(device: Any) -> dict[str, float]:
    """MB in use, by kind."""
    import torch

    memory = {"memory (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        memory["GPU memory (MB)"] = torch.cuda.memory_reserved(device) / 1e6
    return memory
