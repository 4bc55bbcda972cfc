"""What the arguments of commands may be. What they may not is refused while they are read, before anything is loaded."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moshivis_ros.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

    from moshivis_ros.options import Option


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number in these limits."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ArgumentTypeError(f"give a whole number from {low} to {high}, not {text!r}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: a number in these limits, which NaN is not."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ArgumentTypeError(f"give a number from {low:g} to {high:g}, not {text!r}")
        return value

    return parse


seed = whole(0, 2**31 - 1)


def file(text: str) -> str:
    """A type for argparse: a name that is not empty, as the variable of a script may be."""
    if not text:
        raise ArgumentTypeError("an empty name; name a file, or leave the option out")
    return text


def device(text: str) -> str:
    """A type for argparse: auto, or a device of torch on this machine. Raises MissingDependencyError without torch."""
    if text in ("auto", "cpu"):  # known without loading torch
        return text
    from moshivis_ros.model.device import find_device

    try:
        return str(find_device(text))
    except ConfigError as error:  # argparse would replace its text: it is a ValueError
        raise ArgumentTypeError(str(error)) from error


def add(group: _ArgumentGroup, option: Option) -> None:
    """An option of loading a model, as --its-name."""
    kind: dict[str, Any] = {"metavar": "X"}
    if option.choices:
        kind = {"choices": option.choices}
    elif option.name == "device":
        kind["type"] = device
    elif isinstance(option.default, bool):
        kind = {"action": BooleanOptionalAction}
    elif option.range:
        low, high = option.range
        kind["type"] = whole(int(low), int(high)) if isinstance(low, int) else number(low, high)
    meaning = f"{option.meaning} ({option.otherwise or '%(default)s'})"
    group.add_argument(f"--{option.name.replace('_', '-')}", default=option.default, help=meaning, **kind)
