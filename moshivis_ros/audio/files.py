"""Recordings on disk, in blocks: FFmpeg (PyAV) decodes, so that every kind has one way in."""

from __future__ import annotations

import importlib
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from moshivis_ros.audio import SAMPLE_RATE, Float
from moshivis_ros.audio.parts import Part, parts
from moshivis_ros.audio.pcm import MAX_CHANNELS, encode, mono
from moshivis_ros.audio.resample import fraction, resample_blocks
from moshivis_ros.errors import AudioError, MissingDependencyError, OutputError
from moshivis_ros.outputs import ROOM, OutputFile

BLOCK = 1.0  # seconds of sound in memory at once, about
KINDS = {".wav": "pcm_s16le", ".flac": "flac"}  # that are written -> names of FFmpeg's encoders
LAYOUTS = (
    "",
    "mono",
    "stereo",
    "2.1",
    "4.0",
    "5.0",
    "5.1",
    "6.1",
    "7.1",
)  # FFmpeg's names, by number of channels
LEAST = 500  # bytes that a second of sound takes, however compressed
ATTEMPTS = 100  # to read on in a damaged file
# Bytes to look at before a WAV file is known (of others FFmpeg knows better how many it needs), and to decode at once.
PROBE = {"probesize": "32", "max_size": "16384"}


class Recording:
    """A recording of any kind, rate and channel count, to go through once: blocks of mono float32 at `sample_rate`.

    Together they are all the sound that the file holds, whatever its headers say of its length; files that were joined end
    to end are one recording. Memory does not grow with the length.
    Raises AudioError at once where the file is missing, not a recording, or holds no sound.
    """

    def __init__(self, path: str | Path, sample_rate: float = SAMPLE_RATE) -> None:
        self.path = path if os.path.exists(path) else os.path.expanduser(path)
        self.seconds: float | None = None  # about how long it is, where the file lets that be known
        self._rate = sample_rate
        self._replaced = self._damaged = 0
        self._any = False  # sound has been found
        decoded = self._decoded()
        first = next(decoded, None)
        if first is None:
            raise AudioError(f"{path}: the recording is empty: there is no sound in it that can be decoded")
        self._blocks = chain([first], decoded)

    def __iter__(self) -> Iterator[Float]:
        for rate, blocks in groupby(self._blocks, key=itemgetter(0)):
            yield from resample_blocks((block for _, block in blocks), rate, self._rate)

    @property
    def notes(self) -> list[str]:
        """What was wrong with what has been read so far and was mended: sentences for the user."""
        notes = []
        if self._replaced:
            notes.append(f"{self.path}: {self._replaced} samples are not finite; they are taken as silence")
        if self._damaged:
            notes.append(f"{self.path}: {self._damaged} damaged packets of sound, left out")
        return notes

    def _decoded(self) -> Iterator[tuple[int, Float]]:
        """(sample rate, mono float32 [about BLOCK seconds]), as they lie in the file."""
        waiting: list[np.ndarray[Any, Any]] = []
        kind: tuple[Any, ...] = (0,)
        for rate, samples in self._frames():
            new = rate, samples.dtype, samples.shape[1]
            if waiting and (new != kind or sum(map(len, waiting)) >= BLOCK * rate):
                yield kind[0], self._mono(waiting)
                waiting = []
            kind = new
            waiting.append(samples)
        if waiting:
            yield kind[0], self._mono(waiting)

    def _mono(self, pieces: list[np.ndarray[Any, Any]]) -> Float:
        out, replaced = mono(np.concatenate(pieces))
        self._replaced += replaced
        return out

    def _frames(self) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """(sample rate, samples of a type of pcm.FORMATS [n, channels]) of every frame that can be decoded."""
        av = _av()
        try:
            mode = os.stat(self.path).st_mode
            if not stat.S_ISREG(mode):
                what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
                raise AudioError(f"{self.path}: {what}, not a recording; give a file")
            with open(self.path, "rb") as file:
                for part in parts(file):
                    yield from self._decode(av, part)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AudioError(f"{self.path}: no such recording") from error
        except OSError as error:
            raise AudioError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _decode(self, av: Any, part: Part) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        known: dict[str, Any] = {"format": part.kind, "options": PROBE} if part.kind else {}
        try:
            container = av.open(part, metadata_errors="replace", **known)
        except av.FFmpegError as error:
            if self._any:  # something else after the sound
                return
            raise AudioError(
                f"{self.path}: not a recording that can be read ({error.strerror}); give a WAV, FLAC, OGG or MP3 file"
            ) from error
        with container:
            if not container.streams.audio:
                return
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError(
                    f"{self.path}: the coding of its sound is not known here; convert it to WAV or FLAC"
                )
            if self.seconds is None and container.duration:
                most = os.path.getsize(self.path) / LEAST  # what the file says may be anything
                self.seconds = min(container.duration / av.time_base, most)
            for _ in range(ATTEMPTS):
                try:
                    for packet in container.demux(stream):
                        for frame in self._decoded_packet(av, packet):
                            yield self._samples(frame)
                    return
                except av.FFmpegError:  # of the container: there may be more behind the damage
                    self._damaged += 1

    def _decoded_packet(self, av: Any, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except av.FFmpegError:
            self._damaged += 1
            return []

    def _samples(self, frame: Any) -> tuple[int, np.ndarray[Any, Any]]:
        try:
            fraction(frame.sample_rate)
            if not 1 <= (channels := frame.layout.nb_channels) <= MAX_CHANNELS:
                raise AudioError(f"{channels} channels of sound; give 1 to {MAX_CHANNELS}")
        except AudioError as error:
            raise AudioError(f"{self.path}: {error}") from None
        self._any = True
        array = frame.to_ndarray()
        samples = array.T if frame.format.is_planar else array.reshape(-1, channels)
        if samples.dtype == np.float64:
            with np.errstate(over="ignore"):  # too large is infinite, and counted
                samples = samples.astype(np.float32)
        elif samples.dtype == np.int64:
            samples = (samples >> 32).astype(np.int32)
        return frame.sample_rate, samples


def read(path: str | Path, sample_rate: float = SAMPLE_RATE) -> Float:
    """A whole recording as Recording reads it: mono float32 [n]. Warns of what was not right in it."""
    recording = Recording(path, sample_rate)
    samples = np.concatenate(list(recording))
    for note in recording.notes:
        warnings.warn(note, stacklevel=2)
    return samples


class Writer:
    """A 16-bit file of the kind its name says (.wav, .flac), written as it comes; see outputs.OutputFile.

    `seconds`: how much sound is expected; there must be room for it. Raises OutputError.
    """

    def __init__(
        self, path: str | Path, channels: int = 1, sample_rate: int = SAMPLE_RATE, seconds: float = 0.0
    ) -> None:
        av = _av()
        coding = KINDS.get(Path(path).suffix.lower())
        if coding is None:
            raise OutputError(f"{path}: sound is written as {' or '.join(KINDS)}; name the file so")
        self._channels, self._rate = channels, sample_rate
        self._output = OutputFile(path, room=ROOM + round(2 * channels * sample_rate * seconds))
        self._frame = av.AudioFrame.from_ndarray
        self._layout = LAYOUTS[channels]
        self._container = av.open(
            self._output.file,
            "w",
            format=Path(path).suffix.lower()[1:],
            options={"fflags": "+bitexact", "flush_packets": "1"},
        )
        self._stream = self._container.add_stream(coding, rate=sample_rate, layout=self._layout)
        self._stream.format = "s16"
        self._container.start_encoding()

    def write(self, samples: Float) -> None:
        """float32 [n] or [n, channels]; what is louder than 1 is clipped."""
        if not samples.size:
            return
        frame = self._frame(encode(samples).reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        self._do(lambda: self._container.mux(self._stream.encode(frame)), self._output.file.flush)

    def close(self) -> None:
        """The file is complete, and in its place."""
        self._do(lambda: self._container.mux(self._stream.encode(None)), self._container.close)
        self._output.close()

    def discard(self) -> None:
        """Nothing of it stays."""
        self._output.discard()

    def _do(self, *steps: Callable[[], Any]) -> None:
        try:
            for step in steps:
                step()
        except (OSError, _av().FFmpegError) as error:
            raise self._output.failure(error) from error


def write(path: str | Path, samples: Float, sample_rate: int = SAMPLE_RATE) -> None:
    """float32 [n] or [n, channels] -> a 16-bit file of the kind its name says (.wav, .flac). Raises OutputError."""
    writer = Writer(
        path, samples.shape[1] if samples.ndim > 1 else 1, sample_rate, len(samples) / sample_rate
    )
    writer.write(samples)
    writer.close()


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except (ModuleNotFoundError, OSError) as error:
        raise MissingDependencyError("reading and writing recordings needs PyAV: pip install 'av<19'") from error
