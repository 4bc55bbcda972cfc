"""Checks the values of a dataclass against its own annotations: types, and ranges where they are Annotated with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "a mapping",
    NoneType: "null",
}


@dataclass(frozen=True)
class Range:
    """The smallest and the largest number, or length of a text."""

    low: float
    high: float

    def holds(self, value: Any) -> bool:
        return self.low <= (len(value) if isinstance(value, str) else value) <= self.high


def problems(instance: Any, prefix: str = "") -> Iterator[str]:
    """A line for every field of a dataclass whose value is not what its annotation says: what is expected and found."""
    for name, hint in get_type_hints(type(instance), include_extras=True).items():
        value = getattr(instance, name)
        if not _fits(value, hint):
            yield f"{prefix}{name}: {_words(hint)} is expected, found {short(value)}"


def unlike(given: Any, example: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The same for a mapping without annotations, by the types in an example; what the example lacks may be anything."""
    if not isinstance(given, Mapping):
        return
    for name, value in given.items():
        if name not in example:
            continue
        model = example[name]
        if isinstance(model, Mapping) and isinstance(value, Mapping):
            yield from unlike(value, model, f"{prefix}{name}.")
        elif isinstance(model, list):
            if not isinstance(value, list) or not all(_fits(item, type(model[0])) for item in value):
                yield f"{prefix}{name}: a list like {model} is expected, found {short(value)}"
        elif not _fits(value, type(model)):
            yield f"{prefix}{name}: {_words(type(model))} is expected, found {short(value)}"


def short(value: Any) -> str:
    """A value of a yaml file for an error: it may be as long as it likes."""
    if isinstance(value, (dict, list, tuple)):
        return {dict: "a mapping", list: "a list", tuple: "a list"}[type(value)]
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0]) and arguments[1].holds(value)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        hint = (int, float)
    # True is a whole number to Python, not to a user.
    return isinstance(value, origin or hint) and (hint is bool or not isinstance(value, bool))


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        low, high = (
            f"{limit:g}" if limit < 1e6 else f"{limit:.0f}" for limit in (arguments[1].low, arguments[1].high)
        )
        between = f" of {low} to {high} characters" if arguments[0] is str else f" from {low} to {high}"
        return _words(arguments[0]) + between
    if origin in (Union, UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return "a list, of each item " + _words(arguments[0])
    return _WORDS.get(origin or hint, f"a {hint}")
