"""Sound in and out: conversion, resampling, framing, files and devices. No torch, no ROS."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 24000  # Hz, mono: what Mimi hears and speaks
FRAME_SIZE = 1920  # samples per model frame
FRAME_SECONDS = FRAME_SIZE / SAMPLE_RATE  # 0.08

Float: TypeAlias = NDArray[np.float32]
Int16: TypeAlias = NDArray[np.int16]
