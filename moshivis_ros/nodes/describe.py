"""Writes what can be read off the nodes' tables, the launch files and the interfaces: docs/interface.md,
config/talk.yaml, and what nodes answer to --help.

python -m moshivis_ros.nodes.describe            # updates both, in the source tree
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moshivis_ros.nodes.interface import Parameter

NODES = (
    "talk", "microphone", "speaker", "echo_canceller", "listener", "commands", "audio_file", "video_file", "recorder",
    "dashboard", "sim_camera", "deadman",
)  # fmt: skip
CONFIGURED = ("talk", "microphone", "speaker", "echo_canceller", "recorder", "dashboard")  # the nodes of talk.launch.py
SOURCES = Path(__file__).resolve().parents[2]
HEAD = """# Interface

<!-- written by python -m moshivis_ros.nodes.describe -->

Every launch argument, node, topic, service, parameter and message. `ros2 launch moshivis_ros FILE --show-args` and
`ros2 run moshivis_ros NODE --help` say the same. Names are relative: `namespace` and remaps apply.
"""


def page() -> str:
    """docs/interface.md."""
    launches = [_launch(file) for file in sorted((SOURCES / "launch").glob("*.launch.py"))]
    nodes = [_node(name, importlib.import_module(f"moshivis_ros.nodes.{name}")) for name in NODES]
    files = sorted((SOURCES / "msg").glob("*.msg"))
    messages = [f"### {file.stem}\n\n```\n{file.read_text().strip()}\n```\n" for file in files]
    parts = ["## Launch files\n", *launches, "## Nodes\n", *nodes, "## Messages\n", *messages]
    return "\n".join([HEAD, *parts])


def config() -> str:
    """The parameter file of talk.launch.py: every parameter at its default."""
    lines = ["# Every parameter at its default; written by python -m moshivis_ros.nodes.describe", ""]
    for name in CONFIGURED:
        lines += [f"/**/{name}:", "  ros__parameters:"]
        for row in _tables(importlib.import_module(f"moshivis_ros.nodes.{name}"))[0]:
            lines += [
                f"    # {row.meaning}{_limits(row, ' ({})')}",
                f"    {row.name}: {json.dumps(row.default)}",
            ]
    return "\n".join(lines) + "\n"


def help_text(module: Any) -> str:
    """What the node of this module answers to --help."""
    name = module.__name__.split(".")[-1]
    parameters, interfaces = _tables(module)
    lines = [f"usage: {name} [--ros-args [-p PARAMETER:=VALUE]... [--params-file FILE] [-r NAME:=OTHER]...]", ""]
    lines += [*_wrapped((module.__doc__ or "").strip(), ""), "", "topics and services:"]
    for topic in interfaces:
        lines += [f"  {topic.name}  ({topic.kind} {topic.type})", *_wrapped(topic.meaning, "      ")]
    lines += ["", "parameters, with their defaults:"]
    for row in parameters:
        limits = _limits(row, "  ({})")
        lines += [f"  {row.name}: {json.dumps(row.default)}{limits}", *_wrapped(row.meaning, "      ")]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: str) -> list[str]:
    """The paragraphs of a text in the terminal's width."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    filled = (
        textwrap.wrap(part, width, initial_indent=indent, subsequent_indent=indent) for part in text.split("\n\n")
    )
    return [line for part in filled for line in ["", *part]][1:]


def main() -> None:
    (SOURCES / "config" / "talk.yaml").write_text(config())
    (SOURCES / "docs" / "interface.md").write_text(page())


def _tables(module: Any) -> tuple[Sequence[Parameter], Sequence[Any]]:
    return module.PARAMETERS, module.INTERFACES


def _launch(file: Path) -> str:
    """A section about its arguments."""
    lines = [f"### {file.name}", "", "| argument | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {default and f'`{default}`'} | {meaning} |" for name, default, meaning in launch_arguments(file)]
    return "\n".join([*lines, ""])


def launch_arguments(file: Path) -> list[tuple[str, str, str]]:
    """Name, default and description of each. The package `launch` need not be there: the file meets stand-ins."""
    from unittest.mock import (  # every node imports this module, for --help, and needs no mocks
        MagicMock,
        patch,
    )

    found: list[tuple[str, str, str]] = []

    def declare(name: str, default_value: str = "", description: str = "", choices: Sequence[str] = ()) -> None:
        allowed = f" ({', '.join(choices)})" if choices else ""
        found.append((name, default_value, description + allowed))

    stand_in = MagicMock()
    stand_in.DeclareLaunchArgument = declare
    stand_in.FindPackageShare = "<share of {}>".format
    stand_in.PathJoinSubstitution = "/".join
    source = file.read_text()
    with patch.dict(sys.modules, dict.fromkeys(re.findall(r"^from (launch[\w.]*) import", source, re.M), stand_in)):
        exec(compile(source, file, "exec"), {"__name__": file.stem})
    return found


def _node(name: str, module: Any) -> str:
    parameters, interfaces = _tables(module)
    lines = [f"### {name}", "", (module.__doc__ or "").strip(), ""]
    lines += ["| topic or service | | type | meaning |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | {row.kind} | {row.type} | {row.meaning} |" for row in interfaces]
    lines += ["", "| parameter | default | allowed | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | {json.dumps(row.default)} | {_limits(row, '{}')} | {row.meaning} |"
        for row in parameters
    ]
    return "\n".join([*lines, ""])


def _limits(row: Parameter, form: str) -> str:
    if row.choices:
        return form.format(row.allowed)
    return form.format(f"{row.range[0]} to {row.range[1]}") if row.range else ""


if __name__ == "__main__":
    main()
