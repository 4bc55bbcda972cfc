"""The options of loading a model: the same in `moshivis chat`, in the talk node's parameters and in Python."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import pytest

from moshivis_ros import chat
from moshivis_ros.errors import ConfigError
from moshivis_ros.options import OPTIONS, Options
from moshivis_ros.sampling import Sampling
from moshivis_ros.vision.refresh_policy import Settings

WANTED: dict[str, Any] = {
    "revision": "v2",
    "adapters": "trained",
    "device": "cpu",
    "dtype": "bfloat16",
    "quantize": "int4",
    "kv_cache": "int8",
    "image_encoder": "onnx",
    "image_size": 224,
    "seed": 7,
    "greet": False,
    "renew_after": 60.0,
    "renew_keep": 5.0,
    "text_temperature": 0.0,
    "text_top_k": 3,
    "audio_temperature": 0.5,
    "audio_top_k": 4,
    "refresh_policy": "interval",
    "refresh_max_per_minute": 9,
    "refresh_gate_open": 0.3,
}
EXPECTED = Options(
    "v2", "trained", "cpu", "bfloat16", "int4", "int8", "onnx", 224, 7, False, 60.0, 5.0, Sampling(0.0, 3, 0.5, 4),
    Settings(policy="interval", max_per_minute=9, gate_open=0.3),
)  # fmt: skip


def of_command(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    return Options.of(vars(parser.parse_args(arguments)))


def test_nothing_given_is_the_default_for_all_three() -> None:
    assert of_command() == Options()
    assert Options().quantize == Options().kv_cache == "auto"
    assert Options.of({option.name: option.default for option in OPTIONS}) == Options()


def test_chat_takes_every_option() -> None:
    named = {name.replace("_", "-"): value for name, value in WANTED.items()}
    arguments = [f"--no-{name}" if value is False else f"--{name}={value}" for name, value in named.items()]
    assert of_command(*arguments) == EXPECTED


def test_the_node_takes_every_option() -> None:
    pytest.importorskip("rclpy")
    from moshivis_ros.nodes.talk_interface import PARAMETERS

    rows = {row.name: row for row in PARAMETERS}
    defaults = {option.name: rows[option.name].default for option in OPTIONS}
    assert not [name for name, value in defaults.items() if value is None]
    assert Options.of(defaults) == Options()
    assert Options.of({**defaults, **WANTED}) == EXPECTED
    for name, row in rows.items():
        if row.range and name in defaults:  # or ROS would refuse the default itself
            assert row.range[0] <= row.default <= row.range[1], name


def test_every_option_is_in_the_table_with_its_meaning() -> None:
    own = {field.name for field in dataclasses.fields(Options)} - {"sampling", "refresh"}
    own |= {field.name for field in dataclasses.fields(Sampling)}
    own |= {f"refresh_{field.name}" for field in dataclasses.fields(Settings)}
    assert {option.name for option in OPTIONS} == own
    assert all(len(option.meaning) > 10 for option in OPTIONS)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("quantize", "int2", "auto or none or int8 or int4, not 'int2'"),
        ("kv_cache", "int4", "auto or none or int8"),
        ("dtype", "int8", "float32"),
        ("image_encoder", "tensorrt", "torch or onnx"),
        ("seed", -2, "from 0 to 2147483647"),
        ("image_size", 0, "from 1 to 2048"),
    ],
)
def test_a_value_out_of_its_limits_is_refused_everywhere(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Options(**{name: value})
    assert name in str(refused.value)
    with pytest.raises(SystemExit):
        of_command(f"--{name.replace('_', '-')}={value}")
