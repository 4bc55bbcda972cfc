"""Scenes as data: their script, their pictures, their truth, and the world file."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros.errors import ConfigError
from moshivis_ros.simulation.random_scene import random_scene, random_script
from moshivis_ros.simulation.scenario import load_scenario
from moshivis_ros.simulation.scene import COLOURS, Change, Light, Pose, Scene, Thing, driven
from moshivis_ros.simulation.sdf import read_sdf, to_sdf, write_sdf
from moshivis_ros.simulation.talk_room import TABLE_ROOM, TALK_ROOM

WORLDS = Path(__file__).parents[1] / "worlds"
draws = pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")


def scripted(*changes: Change) -> Scene:
    return replace(TALK_ROOM, changes=changes)


def thing(scene: Scene, name: str) -> Thing:
    return next(thing for thing in scene.things if thing.name == name)


def test_a_script_changes_the_scene_when_it_says() -> None:
    scene = scripted(
        Change(2.0, "red ball", "visible", False),
        Change(1.0, "blue box", "pose", Pose(1, 2, 3), duration=2.0),
        Change(4.0, "lamp", "brightness", 0.2),
    )
    assert thing(scene.at(1.9), "red ball").visible and not thing(scene.at(2.0), "red ball").visible
    start = thing(TALK_ROOM, "blue box").pose
    assert thing(scene.at(2.0), "blue box").pose.x == pytest.approx((start.x + 1) / 2)
    assert thing(scene.at(9.0), "blue box").pose == Pose(1, 2, 3)
    assert [scene.at(t).lights[0].brightness for t in (3.9, 4.0)] == [0.6, 0.2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Thing("thing", "dragon", "red", (1, 1, 1)),
        lambda: Thing("thing", "box", "ultraviolet", (1, 1, 1)),
        lambda: Thing("thing", "box", "red", (1, 0, 1)),
        lambda: scripted(Change(1, "nobody", "visible", False)),
        lambda: scripted(Change(1, "red ball", "kind", "box")),
        lambda: Scene("twice", lights=(Light("lamp"), Light("lamp"))),
    ],
)
def test_impossible_scenes_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_a_robot_that_turns_while_it_drives_comes_round() -> None:
    pose = Pose()
    for _ in range(100):
        pose = driven(pose, forward=0.5, turning=math.pi / 5, seconds=0.1)
    assert (pose.x, pose.y) == pytest.approx((0, 0), abs=1e-6)
    assert driven(Pose(yaw=math.pi / 2), 1.0, 0.0, 2.0).y == pytest.approx(2)


def test_a_world_reads_back_as_it_was_written(tmp_path: Path) -> None:
    for scene in (random_scene(seed) for seed in range(5)):
        write_sdf(scene, tmp_path / "world.sdf")
        back = read_sdf(tmp_path / "world.sdf")
        assert replace(back, things=(), lights=(), robot=scene.robot) == replace(scene, things=(), lights=())
        for ours, theirs in zip(scene.things, back.things, strict=True):
            assert theirs.size == pytest.approx(ours.size)
            assert theirs.pose.numbers() == pytest.approx(ours.pose.numbers())
        assert [light.brightness for light in back.lights] == pytest.approx(
            [x.brightness for x in scene.lights]
        )
        assert back.robot.pose.numbers() == pytest.approx(scene.robot.pose.numbers())
        assert (back.robot.mast, back.robot.tilt) == pytest.approx((scene.robot.mast, scene.robot.tilt))
        assert [(t.name, t.kind, t.colour) for t in back.things] == [
            (t.name, t.kind, t.colour) for t in scene.things
        ]


def test_what_gazebo_gets_is_linear_light() -> None:
    """ogre2 shows value ** (1 / 2.2)."""
    world = ElementTree.fromstring(to_sdf(TALK_ROOM)).find("world")
    assert world is not None
    ball = numbers(world.find("model[@name='red ball']"), "link/visual/material/diffuse")
    assert [part ** (1 / 2.2) for part in ball[:3]] == pytest.approx(COLOURS["red"])
    assert numbers(world, "scene/ambient") == pytest.approx([0.168, 0.168, 0.168, 1])  # 0.28 of the brightest lamp
    lamp, window = world.findall("light")
    assert (lamp.get("type"), lamp.findtext("cast_shadows")) == ("point", "true")
    assert (window.get("type"), window.findtext("cast_shadows")) == ("spot", "false")
    assert numbers(window, "direction") == [0, 0, -1] and numbers(window, "spot/outer_angle") == [2.967]
    for light, brightness in ((lamp, 0.6), (window, 0.35)):
        assert numbers(light, "diffuse") == [brightness, brightness, brightness, 1]
        assert numbers(light, "intensity") == [0.42]


def test_the_wheels_touch_the_floor_in_one_point() -> None:
    robot = ElementTree.fromstring(to_sdf(TALK_ROOM)).find("world/model[@name='robot']")
    for side in ("left", "right"):
        wheel = robot.find(f"link[@name='{side}_wheel']")
        assert numbers(wheel, "collision/geometry/sphere/radius") == [0.1]
        assert numbers(wheel, "pose")[2] == 0.1 == numbers(wheel, "visual/geometry/cylinder/radius")[0]


def numbers(element: ElementTree.Element, path: str) -> list[float]:
    return [float(number) for number in element.findtext(path).split()]


@pytest.mark.parametrize("room", [TALK_ROOM, TABLE_ROOM], ids=lambda room: room.name)
def test_the_world_file_is_the_room(room: Scene) -> None:
    assert (WORLDS / f"{room.name}.sdf").read_text() == to_sdf(room), (
        "python -m moshivis_ros.simulation.talk_room"
    )


@pytest.mark.skipif(not shutil.which("ign"), reason="the sdformat checker is not installed")
@pytest.mark.parametrize("world", ["talk_room", "table_room"])
def test_the_world_passes_the_sdformat_check(world: str) -> None:
    checked = subprocess.run(
        ["ign", "sdf", "-k", str(WORLDS / f"{world}.sdf")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0 and "Valid" in checked.stdout
    assert "Error" not in checked.stderr, checked.stderr  # it may say Valid all the same


def test_what_is_no_world_of_ours_is_refused(tmp_path: Path) -> None:
    for text in ("not xml", "<sdf version='1.9'><world name='empty'/></sdf>"):
        (tmp_path / "w.sdf").write_text(text)
        with pytest.raises(ConfigError, match="w.sdf"):
            read_sdf(tmp_path / "w.sdf")
    (tmp_path / "s.yaml").write_text("about: nothing\n")
    with pytest.raises(ConfigError, match="s.yaml"):
        load_scenario(tmp_path / "s.yaml")


def test_there_are_six_scenarios_that_can_be_played() -> None:
    scenarios = [load_scenario(path) for path in sorted((WORLDS / "scenarios").glob("*.yaml"))]
    assert len(scenarios) >= 6
    for scenario in scenarios:
        assert scenario.about and scenario.scene.changes
        assert all(change.time + change.duration <= scenario.seconds for change in scenario.scene.changes)
    asked = [question for scenario in scenarios for question in scenario.questions]
    assert asked and all(question.sound.is_file() for question in asked)


def test_the_same_seed_is_the_same_scene() -> None:
    assert random_script(random_scene(3), 3, 20.0, 4) == random_script(random_scene(3), 3, 20.0, 4)
    assert random_scene(3) != random_scene(4)


@draws
def test_a_world_that_was_written_and_read_looks_the_same(tmp_path: Path) -> None:
    from moshivis_ros.simulation.render import Renderer

    pictures = []
    write_sdf(TABLE_ROOM, tmp_path / "world.sdf")
    for scene in (TABLE_ROOM, read_sdf(tmp_path / "world.sdf")):
        with Renderer(scene, 160, 120) as renderer:
            pictures.append(renderer.image(scene))
    assert np.array_equal(*pictures)


@draws
@pytest.mark.parametrize(
    ("x", "y", "yaw", "stops_at"),
    [
        (-1.7, 0.0, 0.0, -0.32),  # the mast at the edge of the table, over the body that passes below
        (-1.7, 0.0, math.pi, -2.78),  # the body at the wall
        (-2.0, -1.2, -math.pi / 2, -1.927),  # a wheel at the purple cylinder
    ],
)
def test_the_base_stops_where_something_is_in_its_way(x: float, y: float, yaw: float, stops_at: float) -> None:
    from moshivis_ros.simulation.base import Base

    scene = TALK_ROOM.with_robot_at(Pose(x, y, yaw=yaw))
    base = Base(scene)
    base.command(1.0, 0.0, 0.0)
    for _ in range(1000):
        base.step(scene, 0.004)
    assert base.pose
    assert (base.pose.x if y == 0 else base.pose.y) == pytest.approx(stops_at, abs=0.01)


@draws
def test_the_base_goes_through_what_is_not_there_and_out_of_what_it_is_in() -> None:
    from moshivis_ros.simulation.base import Base

    scene = scripted(Change(1.0, "table", "visible", False), Change(2.0, "table", "visible", True))
    base = Base(scene)
    base.command(0.5, 0.0, 0.0)
    for _ in range(750):  # 1.5 m: the mast is where the table was
        base.step(scene.at(1.0), 0.004)
    assert base.pose and base.pose.x == pytest.approx(-0.2, abs=0.001)
    for _ in range(25):  # and the table is there again
        base.step(scene.at(2.0), 0.004)
    assert base.pose.x == pytest.approx(-0.2, abs=0.001)
    base.command(-0.5, 0.0, 0.0)
    for _ in range(1000):
        base.step(scene.at(2.0), 0.004)
    assert base.pose.x < -0.5


@draws
def test_a_picture_and_what_is_seen_in_it() -> None:
    from moshivis_ros.simulation.render import Renderer

    gone = Change(1.0, "red ball", "visible", False)
    blocked = Change(2.0, "blue box", "pose", Pose(-0.3, -0.5, 0.83))  # before the green bottle
    scene = scripted(gone, blocked)
    with Renderer(scene, 320, 240) as renderer:
        image = renderer.image(scene.at(0))
        views = [{seen.name: seen for seen in renderer.seen(scene.at(t))} for t in (0, 1, 2)]
        again = renderer.image(scene.at(0))
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    assert np.array_equal(image, again)

    ball = views[0]["red ball"]
    red, green, blue = image[int(ball.y * 240), int(ball.x * 320)].astype(int)
    assert red > 2 * green and red > 2 * blue
    assert ball.share > 0.9 and ball.x < 0.5 < views[0]["green bottle"].x
    assert "red ball" not in views[1]
    assert views[1]["green bottle"].share > 0.9
    hidden = views[2].get("green bottle")
    assert hidden is None or hidden.share < 0.6
