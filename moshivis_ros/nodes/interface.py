"""What a node shows to the outside, as tables: declared from them, checked against them, printed in docs/interface.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions

QOS = QoSOverridingOptions.with_default_policies()  # parameters qos_overrides.TOPIC.publisher.depth and the like


@dataclass(frozen=True)
class Parameter:
    """`range`: smallest and largest number; `choices`: the allowed strings."""

    name: str
    default: bool | int | float | str
    meaning: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        return ", ".join(choice or '""' for choice in self.choices)


@dataclass(frozen=True)
class Interface:
    """A topic, service or action. `kind`: subscribes, publishes, serves, acts, or calls another node's."""

    name: str
    kind: str
    type: str
    meaning: str


def declare(node: Node, table: Sequence[Parameter], *, read_only: bool = True) -> None:
    """Declare every parameter of the table, and refuse what is not among the choices, from the first value
    on.

    Numbers out of range are refused by rclpy itself, which names the parameter. `read_only`: the values at
    the start of the node hold for its life.
    """
    rows = {row.name: row for row in table if row.choices}

    def check(parameters: Sequence[Any]) -> SetParametersResult:
        for parameter in parameters:
            row = rows.get(parameter.name)
            if row and parameter.value not in row.choices:
                reason = f"{parameter.name} is {parameter.value!r}; it must be one of {row.allowed}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    for row in table:
        descriptor = ParameterDescriptor(description=row.meaning, read_only=read_only)
        if row.choices:
            descriptor.additional_constraints = f"one of: {row.allowed}"
        if row.range and isinstance(row.default, int):
            low, high = row.range
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        elif row.range:
            low, high = row.range
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        node.declare_parameter(row.name, row.default, descriptor)


def values(node: Node, table: Sequence[Parameter]) -> dict[str, Any]:
    """The present value of every parameter of the table, by name."""
    return {row.name: node.get_parameter(row.name).value for row in table}
