"""The options of loading a model, once: `moshivis chat`, the talk node and Conversation.load all take these.

    Options(quantize="int8", seed=3)             in Python; Conversation.load(name, seed=3) makes one
    OPTIONS                                      the same as flat rows, for a command line and for ROS parameters
    Options.of({"quantize": "int8", ...})        from the values of such rows

No torch, no ROS.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple

from moshivis_ros.errors import ConfigError
from moshivis_ros.sampling import Sampling
from moshivis_ros.vision.refresh_policy import POLICIES, Settings


def _of(default: Any, **limits: Any) -> Any:
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Options:
    """How a model is loaded, and how it talks. Raises ConfigError for a value out of its limits.

    revision: branch, tag or commit of the Hugging Face repo.
    adapters: folder of `moshivis train` whose adapters are put into the model.
    device: auto (the GPU where there is one), cpu, cuda, cuda:1 and so on.
    dtype: numbers to compute with; auto: bfloat16 on a GPU, float32 on a CPU.
    quantize: weights in fewer bits, less memory and sooner read; auto: the best that fits the free memory and is quick
        enough (a small model stays as it is); none: as the checkpoint holds them.
    kv_cache: the attention window in half the memory (int8), or in the numbers to compute with (none); auto: what fits.
    image_encoder: torch, or onnx for the file that `moshivis export-image-encoder` wrote.
    image_size: pixels of the square that pictures become; while it talks at most what it began with.
    seed: same seed and input, same conversation.
    greet: it may speak first; no: it is silent until it hears somebody, or has a goal.
    renew_after: seconds of talk after which, at the next pause of both speakers, the context begins anew with its end,
        because long ones may get worse; 0: never.
    renew_keep: seconds of it that are carried over, as many as the attention window holds; less than renew_after.
    """

    revision: str | None = _of(None, unset="", otherwise="the newest")
    adapters: str | None = _of(None, unset="", otherwise="the checkpoint's own")
    device: str = _of("auto")
    dtype: str = _of("auto", choices=("auto", "bfloat16", "float32"))
    quantize: str = _of("auto", choices=("auto", "none", "int8", "int4"))
    kv_cache: str = _of("auto", choices=("auto", "none", "int8"))
    image_encoder: str = _of("torch", choices=("torch", "onnx"))
    image_size: int | None = _of(None, range=(1, 2048), unset=0, otherwise="the checkpoint's")
    seed: int | None = _of(None, range=(0, 2**31 - 1), unset=-1, otherwise="always another")
    greet: bool = _of(True)
    renew_after: float = _of(0.0, range=(0.0, 86400.0))
    renew_keep: float = _of(10.0, range=(0.3, 3600.0))
    sampling: Sampling = Sampling()
    refresh: Settings = Settings()

    def __post_init__(self) -> None:
        for option in _rows(Options):
            value = getattr(self, option.name)
            if option.choices and value not in option.choices:
                raise ConfigError(f"{option.name} must be {' or '.join(option.choices)}, not {value!r}")
            if option.range and value is not None and not option.range[0] <= value <= option.range[1]:
                raise ConfigError(
                    f"{option.name} must be from {option.range[0]} to {option.range[1]}, not {value}"
                )

    @property
    def smallest_window(self) -> str | None:
        """The smallest attention window that ``kv_cache`` allows, as load_model takes it."""
        return None if self.kv_cache == "none" else "int8"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """From values by the names of OPTIONS; one that is ``unset`` is left open."""
        given: dict[str, Any] = {
            option.name: None if values[option.name] == option.unset else values[option.name]
            for option in OPTIONS
        }
        sampling = {row.name: given.pop(row.name) for row in _rows(Sampling)}
        refresh = {row.name.removeprefix(REFRESH): given.pop(row.name) for row in _rows(Settings, REFRESH)}
        return cls(**given, sampling=Sampling(**sampling), refresh=Settings(**refresh))


class Option(NamedTuple):
    """One of them as a row. ``default`` None: left open, which means ``otherwise``, and is said by ``unset`` where
    there is no None (in a ROS parameter).
    """

    name: str
    default: str | int | float | None
    meaning: str
    choices: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    unset: str | int | float | None = None
    otherwise: str = ""


REFRESH = "refresh_"  # before the names of the refresh policy's settings


def _rows(kind: type, prefix: str = "") -> Iterator[Option]:
    """A row for each field whose meaning is in the docstring of its class."""
    entry = re.compile(r"^(\w[\w, ]*): (.+(?:\n {4}.+)*)", re.MULTILINE)
    meanings = {
        name: " ".join(text.split()).rstrip(".")
        for names, text in entry.findall(inspect.getdoc(kind) or "")
        for name in names.split(", ")
    }
    for each in fields(kind):
        assert each.default is not MISSING
        if each.name in meanings:
            limits = each.metadata or _limits(each.name, each.default)
            yield Option(prefix + each.name, each.default, meanings[each.name], **limits)


def _limits(name: str, default: Any) -> dict[str, Any]:
    """Of a setting of the refresh policy."""
    if name == "policy":
        return {"choices": POLICIES}
    if isinstance(default, int) and not isinstance(default, bool):
        return {"range": (1, 1000)}
    if isinstance(default, float):
        share = "distance" in name or name in ("gate_open", "gate_closed")
        return {"range": (0.0, 1.0 if share else 3600.0)}
    return {}


OPTIONS = (*_rows(Options), *_rows(Sampling), *_rows(Settings, REFRESH))
