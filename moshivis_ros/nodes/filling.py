"""Plain data -> messages of types that are found at run time. What does not fit is named."""

from __future__ import annotations

import re
from typing import Any

from moshivis_ros.nodes.messages import interface_type

_ARRAY = re.compile(r"sequence<(?P<inner>[^,]+)(?:, (?P<most>\d+))?>|(?P<fixed>.+)\[(?P<size>\d+)\]")
_INTEGER = re.compile(r"(u?)int(8|16|32|64)|octet")


class Misfit(Exception):
    """`where`: the keys down to what does not fit."""

    def __init__(self, where: tuple[str, ...], what: str) -> None:
        super().__init__(what)
        self.where = where


def fill(message: Any, data: dict[str, Any], where: tuple[str, ...] = ()) -> Any:
    """The message with these fields set; the others keep their values. Raises Misfit."""
    fields = message.get_fields_and_field_types()
    for name, value in data.items():
        here = (*where, str(name))
        if name not in fields:
            raise Misfit(
                here, f"{type(message).__name__} has no such field; it has {', '.join(fields) or 'none'}"
            )
        setattr(message, name, _value(fields[name], value, here))
    return message


def _value(kind: str, value: Any, where: tuple[str, ...]) -> Any:
    """A value for a field of this type, as messages declare them."""
    if found := _ARRAY.fullmatch(kind):
        inner, size, most = found["inner"] or found["fixed"], found["size"], found["most"]
        if (
            not isinstance(value, list)
            or (size and len(value) != int(size))
            or (most and len(value) > int(most))
        ):
            raise Misfit(where, f"must be a list of {kind}, and is {value!r}")
        return [_value(inner, entry, where) for entry in value]
    if "/" in kind:
        if not isinstance(value, dict):
            raise Misfit(where, f"must be the fields of a {kind}, and is {value!r}")
        return fill(interface_type(kind.replace("/", "/msg/"))(), value, where)
    number = isinstance(value, int) and not isinstance(value, bool)
    if kind.startswith(("string", "wstring")):
        if isinstance(value, str):
            return value
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind in ("float", "double"):
        if number or isinstance(value, float):
            return float(value)
    elif (found := _INTEGER.fullmatch(kind)) and number:
        unsigned, bits = (found[1] or kind == "octet"), int(found[2] or 8)
        low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if low <= value <= high:
            return bytes([value]) if kind == "octet" else value
    raise Misfit(where, f"must be a {kind}, and is {value!r}")
