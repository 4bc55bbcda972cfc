"""What a driving robot sees, to train on and to be judged by: which things count, and pictures that outlive a stop."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moshivis_ros.cli import main
from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.checkpoint import BUILTIN, load_model
from moshivis_ros.simulation.render import Renderer
from moshivis_ros.simulation.scene import Scene
from moshivis_ros.simulation.talk_room import TALK_ROOM
from moshivis_ros.training import pool as pools
from moshivis_ros.training.dialogues import COLOURS, KINDS, MAX_THINGS, Item
from moshivis_ros.training.image_stage import FILE
from moshivis_ros.training.pictures import (
    HEIGHT,
    LEAST_AREA,
    LEAST_SHARE,
    WIDTH,
    Picture,
    QuickRenderer,
    looked_at,
    pictures,
)
from moshivis_ros.training.pool import mixed, pool
from moshivis_ros.training.rooms import arrange, furnished, named, photographed, rooms
from moshivis_ros.training.train import Settings, train

GRID, SIZE, PATCH = 8, 112, 14
CONFIG = Path(__file__).parents[1] / "moshivis_ros" / "training" / "configs" / "builtin"
pytestmark = [
    # Not importorskip: mujoco chooses its OpenGL when it is first imported, and the renderer has a say in that.
    pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")
]


def same(one: Picture, other: Picture) -> bool:
    return one.view == other.view and np.array_equal(one.pixels, other.pixels)


@pytest.fixture(scope="module")
def arranged() -> Iterator[tuple[QuickRenderer, list[Scene]]]:
    rng = random.Random(1)
    room = furnished(rng)
    renderer = QuickRenderer(room, WIDTH, HEIGHT)
    with renderer:
        yield renderer, [arrange(rng, room) for _ in range(60)]


def test_a_seed_always_draws_the_same_rooms() -> None:
    first, again, other = (list(islice(rooms(seed, SIZE, PATCH), 3)) for seed in (3, 3, 4))
    assert all(map(same, first, again)) and not any(map(same, first, other))
    assert first[0].pixels.shape == (SIZE, SIZE, 3) and first[0].patches.shape == (GRID, GRID)


def test_a_thing_counts_if_enough_of_it_is_to_be_seen(arranged: tuple[QuickRenderer, list[Scene]]) -> None:
    renderer, scenes = arranged
    answered = 0
    for scene in scenes:
        names = {thing.name for thing in named(scene.things)}
        seen = [one for one in renderer.seen(scene) if one.name in names and one.area > 0.0004]
        clear = all(one.area >= LEAST_AREA and one.share >= LEAST_SHARE for one in seen)
        found = looked_at(renderer, scene, named(scene.things), GRID)
        if found is None:
            between = any(abs(one.x - edge) < 0.04 for one in seen for edge in (0.37, 0.63))
            assert not clear or between or len(seen) > MAX_THINGS
            continue
        answered += 1
        from_left = sorted(seen, key=lambda one: one.x)
        assert clear and [(item.kind, item.colour) for item in found.view] == [(s.kind, s.colour) for s in from_left]
        assert set(np.unique(found.patches[found.patches >= 0])) <= set(range(len(seen)))
    assert answered > 10


def test_furniture_in_colours_that_are_asked_for_is_no_answer(arranged: tuple[QuickRenderer, list[Scene]]) -> None:
    renderer, scenes = arranged
    others = {one.kind for scene in scenes for one in renderer.seen(scene) if one.colour in COLOURS} - set(KINDS)
    assert {"chair", "plant", "cylinder"} <= others
    assert all(thing.kind in KINDS for scene in scenes for thing in named(scene.things))


def test_all_things_of_the_talk_room_count_from_where_its_robot_starts() -> None:
    with Renderer(TALK_ROOM, WIDTH, HEIGHT) as renderer:
        found = looked_at(renderer, TALK_ROOM, named(TALK_ROOM.things), GRID)
    assert found is not None and found.view == (
        Item("ball", "red", "on the left"),
        Item("cup", "yellow", "in the middle"),
        Item("box", "blue", "in the middle"),
        Item("bottle", "green", "on the right"),
    )


def test_some_pictures_are_overexposed_and_none_is_black() -> None:
    ramp = np.broadcast_to(np.linspace(20, 220, WIDTH).astype(np.uint8)[:, None], (HEIGHT, WIDTH, 3)).copy()
    shown = [photographed(random.Random(seed), ramp) for seed in range(60)]
    white = [float((one >= 250).all(-1).mean()) for one in shown]
    assert 0.15 < max(white) < 0.5 and sum(share < 0.02 for share in white) > 20
    assert min(one.mean() for one in shown) > 40


def test_a_pool_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PART", 3)
    drawn: list[int] = []

    def source(seed: int, size: int, patch: int) -> Iterator[Picture]:
        for picture in pictures(seed, size, patch):
            if len(drawn) == stop:
                raise KeyboardInterrupt
            drawn.append(seed)
            yield picture

    stop = 5
    with pytest.raises(KeyboardInterrupt):
        pool(tmp_path / "stopped.npz", 7, 1, SIZE, PATCH, source)
    stop = 99
    again = pool(tmp_path / "stopped.npz", 7, 1, SIZE, PATCH, source)
    assert len(drawn) == 5 + 4 and len(again) == 7  # the first three not again
    whole = pool(tmp_path / "whole.npz", 7, 1, SIZE, PATCH, pictures)
    assert np.array_equal(again.pixels, whole.pixels) and again.views == whole.views
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped.npz", "whole.npz"]


def test_a_pool_of_another_size_is_refused(tmp_path: Path) -> None:
    pool(tmp_path / "small.npz", 2, 1, SIZE, PATCH, pictures)
    with pytest.raises(ConfigError, match=f"small.npz has pictures of {SIZE} x {SIZE} .* {2 * SIZE} x {2 * SIZE} .*delete it"):
        pool(tmp_path / "small.npz", 2, 1, 2 * SIZE, PATCH, pictures)


def test_tables_and_rooms_take_turns() -> None:
    both = list(islice(mixed(5, SIZE, PATCH), 4))
    assert all(map(same, both[::2], pictures(5, SIZE, PATCH))) and all(map(same, both[1::2], rooms(5, SIZE, PATCH)))


@pytest.mark.parametrize("start", ["builtin", "file"])
def test_the_image_encoder_goes_on_from_another(
    start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = load_model(BUILTIN, "cpu", torch.float32).image_prefix.enc.model.state_dict()
    if start == "file":
        shipped = {name: tensor + 0.001 for name, tensor in shipped.items()}
        save_file(shipped, tmp_path / FILE)
        start = str(tmp_path / FILE)
    options = {"model": str(CONFIG), "start": start, "count": 4, "test_count": 4, "batch": 2, "wanted": 0.0}
    files = {name: str(tmp_path / f"{name}.npz") for name in ("pictures", "test_pictures", "test_rooms")}
    stage = Settings("image_encoder", str(tmp_path / "out"), steps=1, learning_rate=0.0, options={**options, **files})
    with pytest.raises(CheckpointError, match="not good enough.*rooms"):  # its heads have learned nothing
        train(stage)
    said = capsys.readouterr().out
    assert "tables: kind" in said and "rooms: kind" in said
    encoder = load_file(tmp_path / "out" / FILE)
    assert all(torch.equal(tensor, shipped[name]) for name, tensor in encoder.items())


def test_a_driving_robot_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moshivis_ros.evaluation import driving

    monkeypatch.setattr(driving, "KEPT", tmp_path / "driving.npz")
    monkeypatch.setattr(driving, "POSES", 3)
    monkeypatch.setattr(driving, "ROOMS", 1)
    assert main(["eval", "builtin", "--driving", "--forms", "written", "--per-kind", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    head = next(line for line in out if line.startswith("| where"))
    rows = {line.split("|")[1].strip(): line for line in out if "| written |" in line}
    assert list(rows) == ["talk room", "random rooms", "**all**"]
    assert all(row.count("|") == head.count("|") for row in rows.values())
    asked = [int(row.split("|")[3]) for row in rows.values()]
    assert asked[0] > 6 and asked[2] == asked[0] + asked[1]
