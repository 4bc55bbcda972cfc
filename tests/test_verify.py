"""`moshivis verify`: the network is the reference, and the command notices when it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from moshivis_ros import cli, verify
from moshivis_ros.errors import CheckpointError

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["tiny_a", "tiny_b"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_golden_data(name: str, dtype: torch.dtype) -> None:
    lines: list[str] = []
    assert verify.run(GOLDEN / name, "cpu", dtype, lines.append), "\n".join(lines)
    assert not [line for line in lines if line.startswith("FAIL")]


@pytest.mark.parametrize("name", ["tiny_a", "tiny_b"])
def test_golden_data_in_triton(name: str) -> None:
    """Its kernels by the interpreter, of which the first steps take 10 s; all of them:
    TRITON_INTERPRET=1 moshivis verify tests/golden/tiny_a
    """
    pytest.importorskip("triton")
    program = "import sys; from moshivis_ros import verify; "
    program += "sys.exit(not verify.run(sys.argv[1], runs=('image', 'noimage'), steps=2))"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", program, GOLDEN / name], env=environment, check=True, cwd=GOLDEN.parent.parent
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_golden_data_on_the_gpu(dtype: torch.dtype) -> None:
    assert verify.run(GOLDEN / "tiny_a", "cuda", dtype) and verify.run(GOLDEN / "tiny_b", "cuda", dtype)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "tiny_a", tmp_path / "tiny_a"))


@pytest.mark.parametrize(
    "array, change",
    [
        ("late/text_token", 1),
        ("swap/audio_tokens", 1),
        ("zerotok/out_tokens", 1),
        ("image/text_logits", 1e-3),
        ("image/gate_per_layer", 1e-4),
        ("image_b_resized_u8", 1),
        ("image_c_pos_embed", 1e-4),
    ],
)
def test_one_changed_number_is_noticed(
    copy: Path, array: str, change: float, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = dict(np.load(copy / "golden.npz"))
    golden[array].flat[golden[array].size // 2] += change
    np.savez(copy / "golden.npz", **golden)
    assert cli.main(["verify", str(copy)]) == 1
    assert f"FAIL  {array}" in capsys.readouterr().out


def test_norm_form_is_a_field_of_the_config(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["norm"] = "real_rms_norm_f32"  # the form of the other backends: not what made these data
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert cli.main(["verify", str(copy)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  image/audio_logits" in out and "ok    image/text_token" not in out


def test_missing_golden_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="golden.npz is missing"):
        verify.run(tmp_path)


def test_missing_array_is_named(copy: Path) -> None:
    golden = dict(np.load(copy / "golden.npz"))
    del golden["swap/gate_alpha"]
    np.savez(copy / "golden.npz", **golden)
    with pytest.raises(CheckpointError, match="no array 'swap/gate_alpha'"):
        verify.run(copy, report=lambda _: None)
