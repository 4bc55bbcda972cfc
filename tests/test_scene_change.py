"""Scene distance: blind to what a camera does by itself, sharp for what happens in front of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from moshivis_ros.errors import ConfigError, ImageError
from moshivis_ros.vision.refresh_policy import Settings
from moshivis_ros.vision.scene_change import DETECTORS, FrameCheck, make_detector

Image = npt.NDArray[np.uint8]
CHANGED, CUT = Settings().change_distance, Settings().cut_distance


def picture(name: str) -> Image:
    path = Path(__file__).parents[1] / "media" / f"{name}.jpg"
    return np.asarray(cv2.imread(str(path)), np.uint8)[:, :, ::-1]


TABLE = picture("scene_a")
LEGS = TABLE.copy()  # with things that are as thin as the legs of chairs
for column in range(40, 420, 60):
    LEGS[60:200, column : column + 8] = 30


def noisy(image: Image, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    return np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def shifted(image: Image, dx: float, dy: float = 0.0) -> Image:
    size = image.shape[1], image.shape[0]
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return np.asarray(cv2.warpAffine(image, move, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def compressed(image: Image, quality: int) -> Image:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def with_ball(image: Image, radius: int, colour: tuple[int, int, int]) -> Image:
    return np.asarray(cv2.circle(image.copy(), (400, 250), radius, colour, -1), np.uint8)


def distance(a: Image, b: Image) -> float:
    detector = make_detector()
    return detector.distance(detector.describe(a), detector.describe(b))


@pytest.mark.parametrize(
    "same",
    [
        TABLE,
        noisy(TABLE),
        (TABLE * 0.7).astype(np.uint8),
        np.clip(TABLE * 1.25, 0, 255).astype(np.uint8),
        np.clip(TABLE * np.array([1.08, 1.0, 0.93]), 0, 255).astype(np.uint8),
        shifted(TABLE, 3, 2),
        compressed(TABLE, 40),
        cv2.resize(TABLE, (320, 240), interpolation=cv2.INTER_AREA),
    ],
    ids=["itself", "noise", "darker", "brighter", "tinted", "shaken", "compressed", "smaller"],
)
def test_same_scene(same: Image) -> None:
    assert distance(TABLE, np.asarray(same, np.uint8)) < CHANGED


@pytest.mark.parametrize("radius", [26, 40, 90])
@pytest.mark.parametrize("colour", [(30, 60, 200), (240, 240, 240), (200, 30, 30)])
def test_thing_that_comes(radius: int, colour: tuple[int, int, int]) -> None:
    assert distance(noisy(TABLE), noisy(with_ball(TABLE, radius, colour), 1)) >= CHANGED


def test_another_place_is_a_cut_and_a_turn_is_a_change() -> None:
    assert distance(TABLE, shifted(TABLE, 100)) >= CHANGED
    assert distance(TABLE, picture("scene_b")) > distance(TABLE, with_ball(TABLE, 20, (200, 0, 0)))
    garden = np.zeros_like(TABLE)
    garden[:240], garden[240:] = (120, 170, 240), (60, 160, 50)
    assert distance(TABLE, garden) >= CUT


@pytest.mark.parametrize(("dx", "dy"), [(12, 0), (-12, 5), (9, 12), (-11, -7)])
def test_a_shaken_camera_sees_the_same_scene_and_what_is_new_in_it(dx: int, dy: int) -> None:
    """One frame is shaken one way, the next one the other: nearly 3 % of the picture apart."""
    assert distance(noisy(shifted(LEGS, dx, dy)), noisy(LEGS, 1)) < CHANGED
    assert distance(noisy(shifted(LEGS, dx, dy)), noisy(with_ball(LEGS, 20, (30, 60, 200)), 1)) >= CHANGED


def test_a_slow_pan_adds_up() -> None:
    steps = [shifted(TABLE, 4 * k) for k in range(25)]
    assert max(distance(a, b) for a, b in zip(steps, steps[1:], strict=False)) < CHANGED
    assert distance(steps[0], steps[-1]) >= CHANGED


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_a_distance_from_0_to_1(name: str) -> None:
    detector = make_detector(name)
    a, b = detector.describe(TABLE), detector.describe(picture("scene_b"))
    assert detector.distance(a, a) == pytest.approx(0, abs=1e-6)
    assert 0 < detector.distance(a, b) <= 1


def test_unknown_detector_and_wrong_picture_are_refused() -> None:
    with pytest.raises(ConfigError, match="crystal ball"):
        make_detector("crystal ball")
    for wrong in (TABLE[:, :, 0], TABLE.astype(np.float32), TABLE[:0]):
        with pytest.raises(ImageError):
            make_detector().describe(wrong)


def faults(*images: Image) -> list[str | None]:
    detector, check = make_detector(), FrameCheck()
    return [check.check(detector.describe(image)) for image in images]


def torn() -> Image:
    image = noisy(TABLE, 3)
    image[250:] = 128
    return image


def blurred() -> Image:
    return noisy(cv2.GaussianBlur(TABLE, (0, 0), 20), 4)


def test_bad_frames_are_named_and_good_ones_are_not() -> None:
    good = [noisy(TABLE, k) for k in range(4)]
    dark, white = (TABLE * 0.03).astype(np.uint8), np.full_like(TABLE, 255)
    assert faults(good[0], dark, good[1], white, good[2], torn(), good[3]) == [
        *(None, "black", None, "saturated", None, "torn", None)
    ]


def test_blur_stays_bad_until_it_is_sharp_again() -> None:
    assert faults(TABLE, blurred(), blurred(), noisy(TABLE)) == [None, "blurred", "blurred", None]


def test_a_cut_is_no_bad_frame() -> None:
    assert faults(TABLE, picture("scene_b"), TABLE) == [None, None, None]


def test_a_live_camera_that_repeats_itself_is_frozen_and_a_still_picture_is_not() -> None:
    live = [noisy(TABLE, k) for k in range(30)]
    assert faults(*live, live[-1], live[-1])[-2:] == ["frozen", "frozen"]
    assert set(faults(*[TABLE] * 40)) == {None}
