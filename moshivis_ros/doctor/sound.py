"""Microphone and loudspeaker, with a level meter."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from moshivis_ros.audio.devices import Microphone, find_device, list_devices
from moshivis_ros.errors import AudioError, MissingDependencyError
from moshivis_ros.finding import Finding

SECONDS = 1.5  # of listening
SILENT = -80.0  # dB: below that it is muted, or nothing is connected; a quiet room is at -60
LIVE_ONLY = "only talking live needs it, not recordings"


def examine(microphone: str | None, speaker: str | None) -> Iterator[Finding]:
    try:
        ears, mouths = list_devices("input"), list_devices("output")
    except MissingDependencyError as error:
        text, _, remedy = str(error).partition(": ")
        yield Finding("sound", "wrong", text, remedy.replace("apt", "sudo apt"))
        return
    if ears:
        yield _listen(microphone)
    else:
        yield Finding("microphone", "absent", f"none; {LIVE_ONLY}")
    if not mouths:
        yield Finding("loudspeaker", "absent", f"none; {LIVE_ONLY}")
        return
    try:
        index = find_device(speaker, "output")
        yield Finding(
            "loudspeaker", "fine", next(line.strip() for line in mouths if line.split()[0] == str(index))
        )
    except AudioError as error:
        yield Finding("loudspeaker", "wrong", str(error))


def _listen(device: str | None) -> Finding:
    loudest = -np.inf
    try:
        with Microphone(device) as ear:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                if (chunk := ear.read(0.2)) is not None:
                    loudest = max(loudest, level := _decibel(chunk.samples))
                    _meter(level)
            _meter(None)
            name, rate = ear.name, ear.sample_rate
    except AudioError as error:
        return Finding("microphone", "wrong", str(error))
    text = f"{name!r} at {rate} Hz"
    if loudest < SILENT:
        return Finding(
            "microphone",
            "wrong",
            f"{text} hears nothing at all: muted, or not connected",
            "pactl set-source-mute @DEFAULT_SOURCE@ 0",
        )
    return Finding(
        "microphone", "fine", f"{text}, up to {loudest:.0f} dB in {SECONDS:g} s (speech is at -40 to -10)"
    )


def _decibel(samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> float:
    """Of full scale."""
    power = float(np.mean((samples / 32768.0) ** 2)) if samples.size else 0.0
    return 10 * float(np.log10(power)) if power else -np.inf


def _meter(level: float | None) -> None:
    """A bar in the terminal, -60 to 0 dB; None: away with it."""
    if sys.stderr.isatty():
        bar = "" if level is None else "say something: " + "#" * int(max(level + 60, 0) / 2)
        print(f"\r{bar:50}", end="\r" if level is None else "", file=sys.stderr, flush=True)
