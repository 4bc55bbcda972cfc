"""The files that name nodes and parameters agree with the nodes."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from rcl_interfaces.srv import GetParameters
from robot import Robot, executable

from moshivis_ros.nodes import describe

ROOT = Path(__file__).parents[2]


def test_config_talk_yaml_is_up_to_date() -> None:
    assert (ROOT / "config" / "talk.yaml").read_text() == describe.config()


def test_the_page_of_the_interface_is_up_to_date() -> None:
    assert (ROOT / "docs" / "interface.md").read_text() == describe.page(), "python -m moshivis_ros.nodes.describe"


@pytest.mark.parametrize("name", describe.NODES)
def test_every_node_has_an_executable(name: str) -> None:
    assert executable(name).exists()


def test_the_parameter_file_is_accepted(robot: Robot, tmp_path: Path) -> None:
    """In a namespace, as the launch file gives it; with one value changed, to see that it is read at all."""
    text = (ROOT / "config" / "talk.yaml").read_text()
    assert "max_backlog: 6" in text
    (tmp_path / "talk.yaml").write_text(text.replace("max_backlog: 6", "max_backlog: 9"))
    robot.start("talk", "--params-file", str(tmp_path / "talk.yaml"))
    expected = yaml.safe_load((tmp_path / "talk.yaml").read_text())["/**/talk"]["ros__parameters"]
    answer = robot.call(GetParameters, "talk/get_parameters", names=list(expected))
    found = {
        name: {1: v.bool_value, 2: v.integer_value, 3: v.double_value, 4: v.string_value}[v.type]
        for name, v in zip(expected, answer.values)
    }
    assert found == expected and found["max_backlog"] == 9


def test_the_layouts_show_topics_that_there_are() -> None:
    interfaces = [row for name in describe.NODES for row in import_module(f"moshivis_ros.nodes.{name}").INTERFACES]
    types = {row.name.strip("/"): row.type for row in interfaces}
    layout = json.loads((ROOT / "config" / "foxglove.json").read_text())
    panels = layout["configById"]
    paths = [path["value"] for panel in panels.values() for path in panel.get("paths", [])]
    for path in paths:
        topic, _, field = path.strip("/").partition(".")
        package, _, name = types[topic].split("/")
        assert field in getattr(import_module(f"{package}.msg"), name).get_fields_and_field_types(), path
    others = [panels["Image!camera"]["imageMode"]["imageTopic"], panels["DiagnosticSummary!health"]["topicToRender"]]
    others.append(panels["RawMessages!words"]["topicPath"].partition("{")[0])
    view = yaml.safe_load((ROOT / "config" / "moshivis.rviz").read_text())["Visualization Manager"]
    others.append(view["Displays"][0]["Topic"]["Value"])
    assert {topic.strip("/") for topic in others} <= set(types)
    assert len(paths) == 5 and _leaves(layout["layout"]) == sorted(panels)


def _leaves(part: Any) -> list[str]:
    return [part] if isinstance(part, str) else sorted(_leaves(part["first"]) + _leaves(part["second"]))
