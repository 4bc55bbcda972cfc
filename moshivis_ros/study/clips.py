"""Rendered clips with known truth: what could be seen in every frame, and when that changed.

The clean pictures of a clip are rendered once and kept on disk, and so are the thumbnails of its frames. What
a camera adds (noise, exposure, flicker, shake, blur, compression, bad frames) is put on when a frame is read,
from the clip's seed.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from moshivis_ros.audio import FRAME_SECONDS
from moshivis_ros.simulation.random_scene import random_scene, random_script
from moshivis_ros.simulation.render import Renderer, Seen
from moshivis_ros.simulation.scene import Change, Pose, Scene, Thing
from moshivis_ros.vision.scene_change import thumbnail

WIDTH, HEIGHT = 320, 240
_SHADOW = "passing shadow"
NUISANCES = ("noise", "flicker", "exposure", "small motion", "compression", "lamp", "shadow")
VERSION = 3  # of scenes, camera and thumbnails: raise it and old files are not used any more

Image = npt.NDArray[np.uint8]
View = tuple[Seen, ...]


@dataclass(frozen=True)
class Clip:
    """One rendered clip.

    pictures: the different clean pictures as PNG; shows: which one each frame shows; views: what is to be
    seen in each picture.
    """

    seed: int
    pictures: tuple[bytes, ...]
    shows: tuple[int, ...]
    views: tuple[View, ...]

    def __len__(self) -> int:
        return len(self.shows)

    def view(self, frame: int) -> View:
        return self.views[self.shows[frame]]

    def frames(self) -> Iterator[Image]:
        """Every frame as the camera delivers it: uint8 [240, 320, 3] RGB."""
        camera = Camera(self.seed, len(self))
        for k, shown in enumerate(self.shows):
            yield camera.take(k, _decode(self.pictures[shown]))

    @cached_property
    def changes(self) -> tuple[int, ...]:
        """Frames at which the last description (the first frame's, or the last change's) became wrong."""
        told, changes = 0, []
        for k in range(len(self)):
            if self.shows[k] != self.shows[told] and not same_story(self.view(told), self.view(k)):
                told = k
                changes.append(k)
        return tuple(changes)


def same_story(told: View, now: View) -> bool:
    """Would a person who describes `told` be right about `now`?

    The same things, in the same colours, none elsewhere in the room by more than its own largest side. A
    thing counts as there from half of it in sight on, as gone below a fifth; in between either is right.
    """
    for one, other in ((told, now), (now, told)):
        found = {seen.name: seen for seen in other}
        for seen in one:
            if seen.share >= 0.5 and seen.area >= 0.002:
                match = found.get(seen.name)
                if match is None or match.share < 0.2 or match.area < 0.0008:
                    return False
                if match.colour != seen.colour or _moved(seen, match):
                    return False
    return True


def _moved(a: Seen, b: Seen) -> bool:
    return float(np.hypot(a.world[0] - b.world[0], a.world[1] - b.world[1])) > a.size


class Camera:
    """What a cheap camera does to a picture, drawn from a seed; the same frame always comes out the same."""

    def __init__(self, seed: int, frames: int) -> None:
        rng = random.Random(f"camera {seed}")
        self._seed = seed
        self._noise = rng.uniform(1.0, 7.0)  # standard deviation, grey levels
        self._flicker = rng.choice((0.0, rng.uniform(0.01, 0.06)))  # of the brightness, mains against shutter
        self._beat = rng.uniform(0.5, 5.0)  # Hz
        self._shake = rng.choice((0.0, 0.0, rng.uniform(0.3, 1.5)))  # standard deviation, pixels
        self._jpeg = rng.choice((0, rng.randint(35, 90)))
        self._tint = [rng.uniform(0.93, 1.07) for _ in range(3)]
        self._gain: npt.NDArray[np.float64] = np.ones(frames)  # exposure, and how it settles after each step
        for _ in range(rng.randint(0, 2)):
            start, step = rng.randrange(frames), rng.uniform(0.7, 1.35)
            settle = rng.choice((1, 6, 25))
            self._gain[start:] *= 1 + (step - 1) * np.minimum(1, (np.arange(frames - start) + 1) / settle)
        self._gain = np.clip(self._gain, 0.6, 1.5)
        self._bad: dict[int, str] = {}
        for _ in range(rng.choice((0, 0, 1, 2))):
            start, kind = rng.randrange(20, frames), rng.choice(("black", "white", "torn", "blur", "blur"))
            length = 1 if kind == "torn" else rng.randint(1, 8)
            self._bad.update(dict.fromkeys(range(start, min(frames, start + length)), kind))

    @classmethod
    def at_its_worst(cls, nuisance: str, seed: int, frames: int) -> Camera:
        """One that does nothing but this one of NUISANCES, as strongly as any; exposure steps every 4 s."""
        camera = cls(seed, frames)
        camera._noise = 7.0 if nuisance == "noise" else 0.0
        camera._flicker = 0.06 if nuisance == "flicker" else 0.0
        camera._shake = 1.5 if nuisance == "small motion" else 0.0
        camera._jpeg = 35 if nuisance == "compression" else 0
        camera._gain = np.ones(frames)
        if nuisance == "exposure":
            steps = np.random.default_rng(seed).choice((0.7, 1.0, 1.35), frames // 50 + 1)
            camera._gain = np.repeat(steps, 50)[:frames]
        camera._bad = {}
        return camera

    def take(self, k: int, picture: Image) -> Image:
        rng = np.random.default_rng((self._seed, k))
        flicker = 1 + self._flicker * np.sin(2 * np.pi * self._beat * k * FRAME_SECONDS)
        image = picture.astype(np.float32) * (np.array(self._tint, np.float32) * self._gain[k] * flicker)
        if self._shake:
            dx, dy = rng.normal(0, self._shake, 2)
            move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            image = cv2.warpAffine(image, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        bad = self._bad.get(k)
        if bad == "blur":
            image = cv2.GaussianBlur(image, (0, 0), 9)
        elif bad == "black":
            image *= 0.03
        elif bad == "white":
            image = image * 3 + 200
        elif bad == "torn":
            image[int(rng.integers(60, 180)) :] = 128
        if self._noise:
            image += rng.normal(0, self._noise, image.shape).astype(np.float32)
        taken = np.clip(image, 0, 255).astype(np.uint8)
        if self._jpeg:
            encoded = cv2.imencode(".jpg", taken, [cv2.IMWRITE_JPEG_QUALITY, self._jpeg])[1]
            taken = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        return np.asarray(taken, np.uint8)


def clip_scene(seed: int, seconds: float) -> Scene:
    """The scene of this seed: about two events in 20 s, and light and shadow that change nothing to tell."""
    rng = random.Random(f"clip {seed}")
    events = rng.choices((0, 1, 2, 3, 4), weights=(2, 3, 5, 3, 1))[0]
    scene = random_script(random_scene(seed), seed, seconds, events)
    if rng.random() < 0.4:
        scene = _with_lamp(rng, scene, seconds)
    if rng.random() < 0.3:
        scene = _with_shadow(rng, scene, seconds)
    return scene


def _with_lamp(rng: random.Random, scene: Scene, seconds: float) -> Scene:
    light = rng.choice(scene.lights)
    to = light.brightness * rng.uniform(0.55, 1.35)
    change = Change(rng.uniform(2, seconds - 2), light.name, "brightness", to, rng.choice((0.0, 1.0)))
    return replace(scene, changes=(*scene.changes, change))


def _with_shadow(rng: random.Random, scene: Scene, seconds: float) -> Scene:
    """Something passes under the lamp, out of sight: only its shadow shows."""
    start, end = Pose(-0.2, -2.4, 2.1), Pose(-0.2, 2.4, 2.1)
    thing = Thing(_SHADOW, "box", "black", (0.5, 0.5, 0.03), start)
    change = Change(rng.uniform(1, seconds - 3), _SHADOW, "pose", end, duration=2.0)
    return replace(scene, things=(*scene.things, thing), changes=(*scene.changes, change))


def disturbed(nuisance: str, seed: int, seconds: float) -> Iterator[Image]:
    """Frames of a room in which nothing to tell happens, with one of NUISANCES at its worst and no other."""
    rng, scene = random.Random(f"disturbed {seed}"), random_scene(seed)
    if nuisance == "lamp":
        scene = _with_lamp(rng, scene, seconds)
    elif nuisance == "shadow":
        scene = _with_shadow(rng, scene, seconds)
    frames = round(seconds / FRAME_SECONDS)
    camera = Camera.at_its_worst(nuisance, seed, frames)
    last, picture = None, None
    with Renderer(scene, WIDTH, HEIGHT) as renderer:
        for k in range(frames):
            now = scene.at(k * FRAME_SECONDS)
            if picture is None or now != last:
                last, picture = now, renderer.image(now)
            yield camera.take(k, picture)


def steady_light(seed: int, seconds: float) -> bool:
    """No lamp changes and no shadow passes in this clip."""
    return not any(
        change.what == "brightness" or change.who == _SHADOW for change in clip_scene(seed, seconds).changes
    )


def load_clip(seed: int, seconds: float) -> Clip:
    """The clip of this seed, from the disk if it has been rendered before."""
    path = cache_folder() / f"clip-v{VERSION}-{seed}-{seconds:g}s.npz"
    if not path.exists():
        _save(path, _packed(_render(seed, seconds)))
    return _read(path)


def thumbnails(clip: Clip) -> npt.NDArray[np.uint8]:
    """uint8 [frames, 48, 64, 3]: scene_change.thumbnail of every frame, from the disk if made before."""
    path = cache_folder() / f"thumbs-v{VERSION}-{clip.seed}-{len(clip)}.npz"
    if not path.exists():
        _save(path, {"thumbs": np.stack([thumbnail(image) for image in clip.frames()])})
    with np.load(path) as data:
        return np.asarray(data["thumbs"])


def _save(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy types its one option, not the arrays
    partial.replace(path)  # a run that is cut off leaves no half file


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moshivis_ros" / "clips"


def _render(seed: int, seconds: float) -> Clip:
    scene = clip_scene(seed, seconds)
    pictures: list[bytes] = []
    views: list[View] = []
    shows: list[int] = []
    last = None
    with Renderer(scene, WIDTH, HEIGHT) as renderer:
        for k in range(round(seconds / FRAME_SECONDS)):
            now = scene.at(k * FRAME_SECONDS)
            if now != last:
                pictures.append(_encode(renderer.image(now)))
                views.append(renderer.seen(now))
                last = now
            shows.append(len(pictures) - 1)
    return Clip(seed, tuple(pictures), tuple(shows), tuple(views))


def _encode(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 2])[1])


def _decode(png: bytes) -> Image:
    image = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return image[:, :, ::-1]


def _packed(clip: Clip) -> dict[str, npt.NDArray[Any]]:
    about = {
        "seed": clip.seed,
        "shows": clip.shows,
        "views": [[asdict(s) for s in view] for view in clip.views],
    }
    pictures = {f"picture{k}": np.frombuffer(png, np.uint8) for k, png in enumerate(clip.pictures)}
    return {"about": np.array(json.dumps(about)), **pictures}


def _read(path: Path) -> Clip:
    with np.load(path) as data:
        about = json.loads(str(data["about"]))
        pictures = tuple(data[f"picture{k}"].tobytes() for k in range(len(about["views"])))
    views = tuple(tuple(Seen(**seen) for seen in view) for view in about["views"])
    return Clip(about["seed"], pictures, tuple(about["shows"]), views)
