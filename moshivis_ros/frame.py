"""One frame of a conversation: what goes in, what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.audio import FRAME_SIZE
from moshivis_ros.errors import AudioError
from moshivis_ros.vision.view import ImageStatus


@dataclass(frozen=True, eq=False)
class Frame:
    """80 ms of the model's answer. Sound, text and gate in one frame belong together.

    index: number of the input frame it answers, from 0. Frame 0 is silence with text None.
    pcm: float32 [1920], 24 kHz, -1..1. text: a piece of the transcript with its leading space, or None.
    gate: mean over channels and the last 10 layers, 0..1, 0 without a picture; gate_per_layer: float32
    [layers]. gate_normalised: 0 (the model looks away) .. 1 (it looks).
    image: the state of the image cache after this frame. cut: what was said before is no longer meant (a goal or the
    user cut in): drop it where it still waits to be played.
    """

    index: int
    pcm: NDArray[np.float32]
    text: str | None
    gate: float
    gate_per_layer: NDArray[np.float32]
    gate_normalised: float
    image: ImageStatus
    cut: bool


def check_pcm(pcm: NDArray[np.float32]) -> None:
    """Raises AudioError unless it is a frame."""
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.float32 or pcm.shape != (FRAME_SIZE,):
        what = f"{pcm.dtype} {pcm.shape}" if isinstance(pcm, np.ndarray) else type(pcm).__name__
        raise AudioError(f"a frame is a numpy float32 array [{FRAME_SIZE}] (80 ms, 24 kHz, mono), not {what}")
    if not np.isfinite(pcm).all():
        raise AudioError("the frame holds NaN or infinite samples: replace them by 0 before step()")
