"""A scenario: a world, what happens in it and when, and what must come of it. One YAML file each.

about: The red ball is taken away.
world: ../talk_room.sdf              # relative to this file
seconds: 10
things:                              # more than the world holds, not visible until a change says so
  - {name: white cup, kind: cup, colour: white, size: [0.12, 0.12, 0.14], pose: [0.1, 0.3, 0.79]}
changes:                             # as simulation.scene.Change; a pose is [x, y, z, roll, pitch, yaw]
  - {time: 3, who: red ball, what: visible, to: false}
refreshes:                           # a picture taken at `after` or later must be in the cache `within` s of it
  - {after: 3, within: 1}
at_most: 2                           # pictures of the time after the first change that may get into the cache
questions:                           # what is asked from `at` on (a recording), and what the answer must hold
  - {at: 5, sound: ../../media/question.wav, answer: red}
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from moshivis_ros.errors import ConfigError
from moshivis_ros.simulation.scene import Change, Pose, Scene, Thing
from moshivis_ros.simulation.sdf import read_sdf


@dataclass(frozen=True)
class Refresh:
    """A picture taken at `after` (seconds into the scenario) or later is in the cache at `after + within`."""

    after: float
    within: float


@dataclass(frozen=True)
class Question:
    """The recording `sound` is heard from `at` on, and `answer` is a word of what the robot says to it."""

    at: float
    sound: Path
    answer: str


@dataclass(frozen=True)
class Scenario:
    """about: one sentence; scene: with its script; at_most: pictures looked at after the first change."""

    name: str
    about: str
    scene: Scene
    seconds: float
    refreshes: tuple[Refresh, ...]
    at_most: int
    questions: tuple[Question, ...]


def load_scenario(path: Path) -> Scenario:
    """Raises ConfigError if the file, its world or anything in it cannot be used."""
    try:
        data = yaml.safe_load(path.read_text())
        things = tuple(_thing(entry) for entry in data.get("things", ()))
        changes = tuple(_change(entry) for entry in data.get("changes", ()))
        world = read_sdf(path.parent / data["world"])
        return Scenario(
            name=path.stem,
            about=data["about"],
            scene=replace(world, things=(*world.things, *things), changes=changes),
            seconds=float(data["seconds"]),
            refreshes=tuple(Refresh(**entry) for entry in data.get("refreshes", ())),
            at_most=int(data["at_most"]),
            questions=tuple(
                Question(entry["at"], path.parent / entry["sound"], entry["answer"])
                for entry in data.get("questions", ())
            ),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} is no usable scenario: {error!r}") from error


def _thing(entry: dict[str, Any]) -> Thing:
    entry = {**entry, "size": tuple(entry["size"]), "pose": Pose(*entry["pose"]), "visible": False}
    return Thing(**entry)


def _change(entry: dict[str, Any]) -> Change:
    to = Pose(*entry["to"]) if entry["what"] == "pose" else entry["to"]
    return Change(**{**entry, "to": to})
