"""The form of one kind of input: what it is, what becomes of it, and the code that makes one and checks that.

A module `*_cases.py` beside this one is a section of docs/inputs.md: its docstring is the heading and the introduction, and
its list CASES the table. test_inputs.py runs every case; `python tests/inputs/describe.py` writes the page.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moshivis_ros.errors import MoshiVisError

HERE = Path(__file__).resolve().parent

Way = Literal["file", "message", "config", "argument"]
Outcome = Literal["read", "converted", "refused"]


@dataclass(frozen=True)
class Case:
    """what: the kind of input, in the words of a user. ways: how it comes in (file: by commands, the Python API and the
    nodes that read files). happens: what becomes of it, in words.
    make: writes such an input into an empty folder, or makes one in memory, and returns what `check` wants.
    check: asserts the right value (length, pitch, colour, ...), or with `refused` the right error.
    """

    what: str
    ways: tuple[Way, ...]
    outcome: Outcome
    happens: str
    make: Callable[[Path], Any]
    check: Callable[[Any], None]


def refused(read: Callable[[Any], Any], *words: str) -> Callable[[Any], None]:
    """A check: `read`, given what was made, raises one of the project's errors, and its text has all of the words."""

    def check(made: Any) -> None:
        try:
            got = read(made)
        except MoshiVisError as error:
            missing = [word for word in words if word not in str(error)]
            assert not missing, f"{str(error)!r} does not say {missing}"
        else:
            raise AssertionError(f"not refused, but read as {got!r:.200}")

    return check


def sections() -> list[tuple[str, list[Case]]]:
    """(docstring, cases) of every module of cases, in the order of the modules' names."""
    for folder in (HERE, HERE.parent):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("*_cases.py"))]
    return [(str(module.__doc__), module.CASES) for module in modules]
