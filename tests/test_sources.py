"""Photos, folders of photos, videos, cameras."""

from __future__ import annotations

import numpy as np
import pytest

from moshivis_ros.errors import ImageError
from moshivis_ros.vision import sources

cv2 = pytest.importorskip("cv2")

RED = (200, 30, 10)


def colour(rgb=RED, height=48, width=64) -> np.ndarray:
    return np.full((height, width, 3), rgb, np.uint8)


def save(path, rgb_image, *options) -> str:
    assert cv2.imwrite(str(path), rgb_image[:, :, ::-1], *options)
    return str(path)


def clip(path, frames=8, rate=10) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for n in range(frames):
        writer.write(colour((20 * n, 100, 50))[:, :, ::-1])
    writer.release()
    return str(path)


def test_a_photo_is_rgb(tmp_path):
    picture = sources.photo(save(tmp_path / "red.png", colour()))
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
    assert tuple(picture[10, 10]) == RED


@pytest.mark.parametrize(
    "pixels",
    [np.full((4, 5), 77, np.uint8), np.full((4, 5), 77 * 257, np.uint16), np.full((4, 5, 4), 77, np.uint8)],
)
def test_grey_16_bit_and_transparent_pictures_become_rgb8(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "odd.png"), pixels)
    picture = sources.photo(tmp_path / "odd.png")
    assert picture.shape == (4, 5, 3) and picture.dtype == np.uint8 and (picture == 77).all()


def test_a_photo_taken_sideways_stands_upright(tmp_path):
    path = tmp_path / "phone.jpg"
    save(path, colour(height=40, width=80))
    jpeg = path.read_bytes()
    # EXIF with one entry: orientation (0x112) = 6, turned by a quarter.
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:])
    assert sources.photo(path).shape == (80, 40, 3)


def test_a_video_gives_its_frames_with_their_times(tmp_path):
    frames = list(sources.video(clip(tmp_path / "clip.avi")))
    assert [time for time, _ in frames] == pytest.approx([n / 10 for n in range(8)])
    assert frames[5][1].shape == (48, 64, 3)
    np.testing.assert_allclose(frames[5][1][24, 32], (100, 100, 50), atol=6)


def test_a_folder_is_a_slide_show_in_the_order_of_names(tmp_path):
    for level, name in reversed(list(enumerate(["a.png", "b.JPG", "c.png", "d.png", "e.jpeg", "f.png"]))):
        save(tmp_path / name, colour((40 * level,) * 3))
    (tmp_path / "notes.txt").write_text("not a photo")
    shown = list(sources.slides(tmp_path, seconds=0.4))
    assert [time for time, _ in shown] == pytest.approx([0.2 * n for n in range(12)])
    assert [round(picture[0, 0, 0] / 40) for _, picture in shown] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_pictures_takes_whatever_it_is_given(tmp_path):
    photo = save(tmp_path / "one.png", colour())
    assert [time for time, _ in sources.pictures(photo, seconds=0.4)] == [0.0, 0.2]
    assert len(list(sources.pictures(tmp_path, seconds=0.1))) == 1
    assert len(list(sources.pictures(clip(tmp_path / "clip.avi")))) == 8


@pytest.mark.parametrize("name, says", [("x.png", "no such picture"), ("x.mp4", "no such video")])
def test_a_missing_file_is_named(tmp_path, name, says):
    with pytest.raises(ImageError, match=f"{name}: {says}"):
        sources.pictures(tmp_path / name)


@pytest.mark.parametrize("name, says", [("x.png", "not a picture"), ("x.mp4", "not a video")])
def test_a_damaged_file_is_named(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"no image at all")
    with pytest.raises(ImageError, match=f"{name}: {says}"):
        sources.pictures(tmp_path / name)


def test_a_camera_is_played_like_a_video_from_its_start(monkeypatch):
    class Capture:
        """Gives blue pictures."""

        def __init__(self, index):
            assert index == 3

        def read(self):
            return True, np.full((2, 2, 3), (255, 0, 0), np.uint8)  # BGR

        def release(self):
            pass

    monkeypatch.setattr(sources.cv2, "VideoCapture", Capture)
    frames = sources.pictures("/dev/video3")
    (first, picture), (second, _) = next(frames), next(frames)
    assert 0 <= first < second < 5 and (picture == (0, 0, 255)).all()


def test_an_empty_folder_and_a_missing_camera_are_named(tmp_path):
    with pytest.raises(ImageError, match="no photos in this folder"):
        sources.pictures(tmp_path)
    with pytest.raises(ImageError, match="camera 97 gives no picture"):
        sources.camera(97)
