"""How different two camera frames are, cheaply; and which frames are no picture of anything.

    detector = make_detector()
    reference = detector.describe(image)                   # uint8 [H, W, 3] RGB, any size
    detector.distance(reference, detector.describe(later)) # 0: the same scene, 1: another place

The reference is the frame in the image cache, not the previous one, so that a slow pan adds up.
`python benchmarks/scene_distance.py` times them; docs/refresh_policy.md compares them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, overload

import cv2
import numpy as np
import numpy.typing as npt

from moshivis_ros.errors import ConfigError, ImageError

Image = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float32]
WIDTH, HEIGHT = 64, 48
DEFAULT = "patches"
LIVE = 25  # frames without an exact copy that make a camera a live one


@dataclass(frozen=True)
class Thumbnail:
    """pixels: uint8 [48, 64, 3] RGB; features: what its detector compares."""

    pixels: Image
    features: npt.NDArray[Any]


class Detector(ABC):
    """A distance between two frames, 0 (same scene) to 1 (nothing in common)."""

    def describe(self, image: Image) -> Thumbnail:
        """uint8 [H, W, 3] RGB of any size -> what distance() needs of it. Anything else: ImageError."""
        pixels = thumbnail(image)
        return Thumbnail(pixels, self._features(pixels))

    @abstractmethod
    def _features(self, pixels: Image) -> npt.NDArray[Any]: ...

    @abstractmethod
    def distance(self, reference: Thumbnail, current: Thumbnail) -> float: ...


LOG = np.log(np.arange(256, dtype=np.float32) + 24.0)  # the 24 keeps the noise of dark pixels small


def make_detector(name: str = DEFAULT) -> Detector:
    """The detector of this name, one of DETECTORS."""
    if name not in DETECTORS:
        raise ConfigError(f"unknown scene change detector {name!r}; known are {', '.join(DETECTORS)}")
    return DETECTORS[name]()


def thumbnail(image: Image) -> Image:
    """uint8 [H, W, 3] -> uint8 [48, 64, 3], every pixel the mean of what it covers."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ImageError(f"a picture must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
    return np.asarray(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


class Patches(Detector):
    """Share of the picture in which nothing nearby in the other frame has the same contrast and colour.

    Log brightness less its surroundings, and the ratios of the colours, are what light changes least. A pixel
    counts as found if the other frame's 3x3 neighbourhood spans its value: noise and half a pixel of motion then
    cost nothing, while a thing that comes or goes is found in neither frame. The densest place counts beside the
    whole: a cup is small, but all of it has changed. Where the whole picture has moved a little, as of a camera
    that shakes, it is moved back first; a pan is more than that.
    """

    luma = 0.39  # a brightness must differ by more than this factor's log (1.5): a shadow is no thing
    chroma = 0.125  # and a ratio of colours by more than this
    half = 0.02  # share of the picture that gives a distance of 0.5
    compact = 0.015  # share of the picture that 5x5 pixels count for if all of them have changed
    shake = 2.0  # pixels of the thumbnail, 3 % of its width, by which a camera may have moved unnoticed

    def _features(self, pixels: Image) -> npt.NDArray[Any]:
        log = LOG[pixels]
        luma = cv2.transform(log, np.full((1, 3), 1 / 3, np.float32))
        detail = (luma - cv2.blur(luma, (15, 15))) / self.luma
        red_green = (log[:, :, 0] - log[:, :, 1]) / self.chroma
        blue_green = (log[:, :, 2] - log[:, :, 1]) / self.chroma
        return np.asarray(cv2.GaussianBlur(np.dstack([detail, red_green, blue_green]), (3, 3), 0))

    def distance(self, reference: Thumbnail, current: Thumbnail) -> float:
        before, now = reference.features, current.features
        tint = np.median((now - before)[::2, ::2, 1:], axis=(0, 1))
        now = now - np.array([0.0, *tint], np.float32)  # white balance
        # Dark and overexposed places do not follow the exposure: the more it changed, the more is let pass.
        exposure = abs(float(np.log((current.pixels.mean() + 1) / (reference.pixels.mean() + 1))))
        share = self._gone(before, now, exposure)
        if share > 0:
            (dx, dy), _ = cv2.phaseCorrelate(before[:, :, 0].copy(), now[:, :, 0].copy(), _WINDOW)
            if max(abs(dx), abs(dy)) <= self.shake:
                share = min(share, self._gone(before, _moved_back(now, dx, dy, before), exposure))
        return share / (share + self.half)

    def _gone(self, before: npt.NDArray[Any], now: npt.NDArray[Any], exposure: float) -> float:
        """Share of the picture that is in one of the two and not in the other."""
        lost = np.minimum(_outside(before, now), _outside(now, before))
        most = np.maximum.reduce(cv2.split(lost))  # .max(axis=2) takes ten times as long
        gone = np.clip(most / (1.0 + exposure) - 1.0, 0.0, 1.0)
        return max(float(gone.mean()), self.compact * float(cv2.blur(gone, (5, 5)).max()))


_WINDOW = cv2.createHanningWindow((WIDTH, HEIGHT), cv2.CV_32F)


def _moved_back(now: npt.NDArray[Any], dx: float, dy: float, before: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What is dx pixels to the right and dy below; as before where the other frame does not reach."""
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    flags, there = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, before.copy()
    return np.asarray(cv2.warpAffine(now, move, (WIDTH, HEIGHT), there, flags, cv2.BORDER_TRANSPARENT))


def _outside(reference: npt.NDArray[Any], current: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How far each value lies outside the range of the reference's 3x3 neighbourhood."""
    box = np.ones((3, 3), np.uint8)
    above = current - cv2.dilate(reference, box)
    below = cv2.erode(reference, box) - current
    return np.asarray(np.maximum(np.maximum(above, below), 0.0))


class Histogram(Detector):
    """Chi-square distance of the colour histograms: blind to where things are."""

    def _features(self, pixels: Image) -> npt.NDArray[Any]:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, [12, 4, 4], [0, 180, 0, 256, 0, 256])
        return np.asarray(counts) / pixels[:, :, 0].size

    def distance(self, reference: Thumbnail, current: Thumbnail) -> float:
        both = reference.features + current.features
        gap = (reference.features - current.features) ** 2
        return float(np.sum(gap[both > 0] / both[both > 0]) / 2)


class Structure(Detector):
    """One minus the structural similarity (Wang et al. 2004) of the brightness, in 7x7 windows."""

    def _features(self, pixels: Image) -> npt.NDArray[Any]:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)

    def distance(self, reference: Thumbnail, current: Thumbnail) -> float:
        a, b = reference.features, current.features
        mean_a, mean_b = cv2.blur(a, (7, 7)), cv2.blur(b, (7, 7))
        var_a = cv2.blur(a * a, (7, 7)) - mean_a**2
        var_b = cv2.blur(b * b, (7, 7)) - mean_b**2
        cov = cv2.blur(a * b, (7, 7)) - mean_a * mean_b
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
        return float(np.clip((1.0 - similarity.mean()) / 2, 0.0, 1.0))


class Hash(Detector):
    """Share of differing bits of a 64-bit perceptual hash (signs of the lowest cosine frequencies)."""

    def _features(self, pixels: Image) -> npt.NDArray[Any]:
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        low = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()[1:]
        return np.asarray(low > np.float32(np.median(low.tolist())))

    def distance(self, reference: Thumbnail, current: Thumbnail) -> float:
        return float(np.mean(reference.features != current.features))


class Edges(Detector):
    """Share of the edges that have none beside them in the other frame."""

    def _features(self, pixels: Image) -> npt.NDArray[Any]:
        return np.asarray(cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 60, 120))

    def distance(self, reference: Thumbnail, current: Thumbnail) -> float:
        a, b, box = reference.features, current.features, np.ones((3, 3), np.uint8)
        alone = np.count_nonzero(a > cv2.dilate(b, box)) + np.count_nonzero(b > cv2.dilate(a, box))
        return alone / max(1, np.count_nonzero(a) + np.count_nonzero(b))


class Flow(Detector):
    """Share of the corners that sparse optical flow (Lucas and Kanade 1981) does not find where they were."""

    def _features(self, pixels: Image) -> npt.NDArray[Any]:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))

    def distance(self, reference: Thumbnail, current: Thumbnail) -> float:
        a, b = reference.features, current.features
        return max(self._lost(a, b), self._lost(b, a))

    def _lost(self, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
        corners = cv2.goodFeaturesToTrack(one, 60, 0.02, 3)
        if corners is None:
            return 0.0
        found, status, error = cv2.calcOpticalFlowPyrLK(one, other, corners, corners.copy(), winSize=(9, 9))
        moved = np.linalg.norm(found - corners, axis=2)[:, 0] > 2
        return float(np.mean(moved | (status[:, 0] == 0) | (error[:, 0] > 15)))


DETECTORS: dict[str, type[Detector]] = {
    "patches": Patches,
    "histogram": Histogram,
    "structure": Structure,
    "hash": Hash,
    "edges": Edges,
    "flow": Flow,
}


class FrameCheck:
    """Tells frames that are no picture of anything: give it every frame of one camera in turn.

    check(thumbnail) returns `black`, `saturated`, `torn`, `blurred`, `frozen`, or None for a good frame.
    """

    def __init__(self) -> None:
        self._previous: Image | None = None
        self._good: Image | None = None
        self._live = 0  # frames so far that were not exact copies, in a row until there are LIVE of them

    def check(self, thumb: Thumbnail) -> str | None:
        pixels, previous = thumb.pixels, self._previous
        self._previous = pixels
        copy = previous is not None and np.array_equal(pixels, previous)
        if not copy:
            self._live += 1
        elif self._live < LIVE:
            self._live = 0
        # Still pictures and noiseless simulations repeat themselves for good reason; live sensors do not.
        frozen = "frozen" if copy and self._live >= LIVE else None
        reason = _fault(_grey(pixels), _grey(previous), _grey(self._good)) or frozen
        if reason is None:
            self._good = pixels
        return reason


def _fault(grey: Grey, previous: Grey | None, good: Grey | None) -> str | None:
    """grey, previous, good: float32 [48, 64]; this frame, the one before, the last good one."""
    if np.count_nonzero(grey > 20) < 0.02 * grey.size:
        return "black"
    if np.count_nonzero(grey > 230) > 0.9 * grey.size:
        return "saturated"
    if previous is None or good is None:
        return None
    # Torn is only the first frame of a kind: what is still there in the next one is the view.
    if _torn(grey, previous) and _torn(grey, good):
        return "torn"
    return "blurred" if _blurred(grey, good) else None


def _torn(grey: Grey, before: Grey) -> bool:
    """Above some row the frame is as it was, from there on all across it is not."""
    changed = (_outside(before, grey) > 12).mean(axis=1)  # [48] share of each row; a shaken row is as it was
    row = int(np.argmax(changed > 0.1))  # the first that is not as it was
    if not 6 <= row < HEIGHT - 6:
        return False
    emptied = grey[row + 1 :].std() < 5 < before[row + 1 :].std()
    return bool(emptied or changed[row + 1 : row + 7].min() > 0.6)


@overload
def _grey(pixels: Image) -> Grey: ...
@overload
def _grey(pixels: None) -> None: ...
def _grey(pixels: Image | None) -> Grey | None:
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)


def _blurred(grey: Grey, before: Grey) -> bool:
    """The same view at any exposure, with its detail gone."""
    grey = grey * np.float32(before.mean() / max(1.0, float(grey.mean())))
    same_view = cv2.absdiff(cv2.blur(grey, (9, 9)), cv2.blur(before, (9, 9))).mean() < 5
    return bool(same_view and _detail(grey) < 0.5 * _detail(before))


def _detail(grey: Grey) -> float:
    return float(cv2.absdiff(grey, cv2.GaussianBlur(grey, (5, 5), 0)).mean())
