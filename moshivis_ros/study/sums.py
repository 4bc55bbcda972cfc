"""What happened in one clip, added to what happened in the others."""

from __future__ import annotations

from typing import Any


class Sum:
    def add(self, other: Sum) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def add_all(total: dict[Any, Any], more: dict[Any, Any]) -> None:
    for key, value in more.items():
        if key in total:
            total[key].add(value)
        else:
            total[key] = value
