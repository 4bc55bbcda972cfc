"""Between the bytes of the outside world and the float32 samples (-1..1) of the inside.

What happens to sound that is not as the model wants it (24 kHz, mono, finite):

| input                                      | behaviour                                                        |
|--------------------------------------------|------------------------------------------------------------------|
| another sample rate, 1 to 384 kHz          | converted (audio.resample), 1 ms later from 24 kHz up            |
| several channels                           | converted: mean of the channels                                  |
| int8, uint8, int32, float32, big-endian    | converted                                                        |
| float beyond -1..1                         | clipped                                                          |
| NaN or infinite sample                     | replaced by silence, counted (`InputCounts.replaced`)            |
| bytes that are not whole samples           | refused: AudioError (`InputCounts.refused`)                      |
| samples that do not fill all channels      | refused: AudioError                                              |
| nothing at all                             | refused: AudioError                                              |
| MP3, OGG, FLAC or WAV data in a byte array | refused: AudioError                                              |
| rate, channel count or format not possible | refused: AudioError                                              |
| more than 3 s, or 7 million numbers        | cut to its end, counted (`InputCounts.cut`)                      |
| repeated or late message (by its index)    | dropped, counted (`InputCounts.repeated`)                        |
| gap in the indices                         | counted (`InputCounts.lost`); up to 160 ms are filled by silence |
| index back to 0, or by more than 16        | a restarted publisher: accepted as a new stream                  |

The lower half is the work of `audio.framing.AudioInput`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from moshivis_ros.audio import Float, Int16
from moshivis_ros.audio.compressed import COMPRESSED
from moshivis_ros.errors import AudioError

MAX_CHANNELS = 64
BLOCK = 65536  # values converted at once, which a CPU's cache holds
PLAIN = re.compile("u?int(8|16|32)|float32|[<>=|]?([iu][124]|f4)")
FORMATS = ("int8", "uint8", "int16", "int32", "float32")


def decode(data: Any, channels: int = 1, sample_format: str = "int16") -> tuple[Float, int]:
    """Interleaved PCM -> (mono float32 [n] in -1..1, number of NaN or infinite samples silenced).

    As interleaved() and then mono(): what they take and raise.
    """
    return mono(interleaved(data, channels, sample_format))


def interleaved(data: Any, channels: int, sample_format: str) -> np.ndarray[Any, Any]:
    """The samples in what has a buffer (bytes, array.array, numpy array), uncopied: [n, channels].

    Its bytes are read as `sample_format`, a name of FORMATS or a numpy type string such as ">i2". A name that
    audio.compressed gives is refused. Raises AudioError as the table above says.
    """
    if sample_format in COMPRESSED:
        raise AudioError(
            f"this is {sample_format}, not samples: let its publisher send wave samples (audio_capture: format:=wave), "
            "or decode it on the way"
        )
    # Not every text: of some, NumPy makes types of several parts, or Python code.
    dtype = np.dtype(sample_format if PLAIN.fullmatch(sample_format) else object)
    if dtype.newbyteorder("=").name not in FORMATS:
        raise AudioError(f"unknown sample format {sample_format!r}; use one of {', '.join(FORMATS)}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{channels} channels of sound; give 1 to {MAX_CHANNELS}")
    view = memoryview(data)
    if not view.nbytes:
        raise AudioError("an audio message without samples; send at least one sample per channel")
    if view.nbytes % dtype.itemsize:
        raise AudioError(
            f"{view.nbytes} bytes are not a whole number of {dtype.name} samples of {dtype.itemsize} bytes; "
            "check the sample format"
        )
    samples = np.frombuffer(view.cast("B") if view.c_contiguous else view.tobytes(), dtype)
    if samples.size % channels:
        raise AudioError(
            f"{samples.size} samples do not fill {channels} channels; check the channel count of the source"
        )
    return samples.reshape(-1, channels)


def mono(samples: np.ndarray[Any, Any]) -> tuple[Float, int]:
    """Samples of a type of FORMATS [n, channels] -> (their mean, float32 [n] in -1..1, number of NaN or infinite
    samples silenced).
    """
    count, channels = samples.shape
    out = np.empty(count, np.float32)
    replaced = 0
    step = max(1, BLOCK // channels)
    for first in range(0, count, step):
        values = _to_float(samples[first : first + step])
        if samples.dtype.kind == "f" and not (values.min() >= -1 and values.max() <= 1):
            finite = np.isfinite(values)
            replaced += int(values.size - np.count_nonzero(finite))
            values = np.clip(np.where(finite, values, np.float32(0)), -1, 1)
        out[first : first + step] = values @ np.full(channels, 1 / channels, np.float32)
    return out, replaced


def encode(samples: Float) -> Int16:
    """float32, 1.0 being full scale -> int16; louder samples are clipped. The inverse of decode()."""
    whole: Int16 = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return whole


def _to_float(samples: np.ndarray[Any, Any]) -> Float:
    values: Float = samples.astype(np.float32)
    if samples.dtype.kind == "f":
        return values
    if samples.dtype.kind == "u":
        values -= 128
    values *= np.float32(1 / 2 ** (8 * samples.dtype.itemsize - 1))
    return values
