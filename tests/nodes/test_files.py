"""The files that name nodes and parameters agree with the nodes."""

from __future__ import annotations

from pathlib import Path

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
