"""Writes what can be read off the nodes' tables: their sections of the README, config/talk.yaml, and what they answer
to --help.

python -m moshivis_ros.nodes.describe            # updates both, in the source tree
"""

from __future__ import annotations

import importlib
import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moshivis_ros.nodes.interface import Parameter

NODES = ("talk", "microphone", "speaker", "echo_canceller", "audio_file", "video_file", "recorder", "dashboard", "sim_camera", "deadman")
BEGIN, END = "<!-- nodes: written by python -m moshivis_ros.nodes.describe -->", "<!-- /nodes -->"
CONFIGURED = ("talk", "microphone", "speaker", "echo_canceller", "recorder", "dashboard")  # the nodes of talk.launch.py
SOURCES = Path(__file__).resolve().parents[2]


def sections() -> str:
    """One section of markdown per node: what it is, its parameters, its topics and services."""
    return "\n".join(_section(name, importlib.import_module(f"moshivis_ros.nodes.{name}")) for name in NODES)


def readme(text: str) -> str:
    """The README with new sections between its two markers."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{sections()}\n{END}{rest.split(END)[1]}"


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
    page = SOURCES / "README.md"
    page.write_text(readme(page.read_text()))


def _tables(module: Any) -> tuple[Sequence[Parameter], Sequence[Any]]:
    return module.PARAMETERS, module.INTERFACES


def _section(name: str, module: Any) -> str:
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
