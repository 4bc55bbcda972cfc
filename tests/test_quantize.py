"""Weights in 8 and 4 bits: how much is lost, that it is really smaller, and that loading quantises on the way."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from moshivis_ros import Conversation, cli
from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.checkpoint import load_model, quantize_checkpoint, save_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.packed import PackedEmbedding, look_up
from moshivis_ros.model.quantize import FORMS, Int4Linear, Int8Linear, quantize
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.weights import write


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind, limit", [("int8", 0.02), ("int4", 0.2)])
def test_a_layer_loses_little(kind: str, limit: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256, dtype=dtype) * torch.logspace(-2, 2, 64, dtype=dtype)[:, None]
    weight[:, 7] *= 5
    x = torch.randn(3, 256, dtype=dtype)
    layer = quantized(weight, kind)
    assert isinstance(layer, Int8Linear if kind == "int8" else Int4Linear)
    expected = x.float() @ weight.float().T
    error = (layer(x).float() - expected).square().mean(0) / expected.square().mean(0)  # of each channel
    assert layer(x).dtype == dtype
    assert 0 < error.sqrt().median() < limit and error.sqrt().max() < 5 * limit


def test_steps_of_4_bits_fit_all_weights_of_a_group() -> None:
    """Better than steps from the extremes, with outliers above all."""
    generator = torch.Generator().manual_seed(0)
    even = torch.randn(64, 512, generator=generator)
    for weight in (even, even * torch.randn(64, 512, generator=generator) ** 2):
        layer = quantized(weight, "int4")
        x = torch.eye(512)
        error = (layer(x).T - weight).norm()
        groups = weight.unflatten(1, (-1, 128))
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        plain = ((groups - low) / (high - low) * 15).round() / 15 * (high - low) + low
        assert error < 0.97 * (plain.flatten(1) - weight).norm()


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.ones(16, 128)
    weight[3] = 0
    for form in FORMS:
        out = quantized(weight, form)(torch.ones(1, 128))[0]
        assert out[3].abs() < 1e-3 and (out[4] - 128).abs() < 2


@pytest.mark.parametrize("form, smallest", [("int8", 0.95), ("int4", 0.75)])
def test_loading_quantises(tiny: Path, form: str, smallest: float) -> None:
    plain = load_model(tiny, "cpu", torch.float32)
    small = load_model(tiny, "cpu", torch.float32, form)
    again = quantize(load_model(tiny, "cpu", torch.float32), form)
    logits = [steps(model) for model in (plain, small, again)]
    assert torch.equal(logits[1], logits[2])
    assert not torch.equal(logits[0], logits[1])
    assert torch.cosine_similarity(logits[0], logits[1]).min() > smallest
    assert size(small) < (0.45 if form == "int8" else 0.4) * size(plain)
    for name in (
        "llm.out_norm.alpha",
        "image_prefix.norm_xa.alpha",
        "image_prefix.enc.model.embeddings.patch_embedding.weight",
    ):
        assert torch.equal(plain.get_parameter(name), small.get_parameter(name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_is_in_8_bits_with_4_too(tiny: Path, dtype: torch.dtype) -> None:
    plain = load_model(tiny, "cpu", torch.float32)
    small = load_model(tiny, "cpu", dtype, "int4")
    kinds = [
        type(small.get_submodule(name)) for name in ("llm.text_linear", "depformer_in.0", "audio_linears.7")
    ]
    assert kinds == [Int4Linear, Int8Linear, Int8Linear]  # 4 bits in the depformer would be heard
    for name in ("llm.text_emb", "audio_emb.15", "depformer_text_emb", "depformer_emb.6"):
        table, ids = small.get_submodule(name), torch.arange(30).reshape(2, 15)
        assert isinstance(table, PackedEmbedding) and table.levels.dtype == torch.int8
        exact = plain.get_submodule(name).weight[ids]
        error = (look_up(table, ids) - exact).norm() / exact.norm()
        assert 0.001 < error < 0.01, name
    pixels = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found, exact = (torch.cat(model.image_kv(pixels)) for model in (small, plain))
    assert found.dtype == dtype
    assert 0.001 < (found.float() - exact).norm() / exact.norm() < 0.03
    assert not any(isinstance(layer, torch.nn.Linear) for layer in small.image_prefix.modules())


def test_the_replayed_step_is_the_plain_one(tiny: Path) -> None:
    model = load_model(tiny, "cpu", torch.float32, "int8")
    plain, replayed = Stream(model), Stream(model)
    replayed.record()
    for stream in (plain, replayed):
        stream.set_sampling(GREEDY)
    for code in torch.randint(model.config.audio_card, (20, 1, 8)):
        assert torch.equal(plain.step(code).tokens, replayed.step(code).tokens)


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("columns", [8, 24, 88, 176, 352])
def test_a_width_that_the_kernel_cannot_do_is_computed_right(form: str, columns: int) -> None:
    x, weight = torch.randn(1, columns), torch.randn(32, columns) / columns**0.5
    with torch.no_grad():
        torch.testing.assert_close(quantized(weight, form)(x), x @ weight.T, atol=0.5, rtol=0.2)


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_one_is_the_same(tiny: Path, tmp_path: Path, form: str) -> None:
    assert cli.main(["quantize", str(tiny), str(tmp_path / "small"), "--quantize", form]) == 0
    saved = load_model(tmp_path / "small", "cpu", torch.float32)
    assert torch.equal(steps(saved), steps(load_model(tiny, "cpu", torch.float32, form)))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tiny, tmp_path / "small")]
    assert sizes[1] < 0.6 * sizes[0]  # of the tiny model a half are embeddings and image encoder
    with Conversation.load(tmp_path / "small", device="cpu", sampling=GREEDY, quantize=form) as conversation:
        conversation.step(np.zeros(1920, np.float32))
    load_model(tmp_path / "small", "cpu", torch.bfloat16)


def test_what_does_not_fit_a_saved_one_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    quantize_checkpoint(tiny, small, "int8")
    with pytest.raises(ConfigError, match="holds int8 weights already: load it without quantize='int4'"):
        load_model(small, "cpu", torch.float32, "int4")
    assert cli.main(["quantize", str(small), str(tmp_path / "other")]) == 2
    assert "holds int8 weights already" in capsys.readouterr().err
    assert cli.main(["quantize", str(tiny), str(small)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="`moshivis quantize` saves"):
        save_model(load_model(tiny, "cpu", torch.float32, "int8"), tmp_path / "other")
    config = ModelConfig.load(small)
    for said, wrong in (
        ("int4", "is of type I8, U8 is expected|has the shape"),
        (None, "weight .* is missing"),
    ):
        dataclasses.replace(config, quantize=said).save(small)
        with pytest.raises(CheckpointError, match=wrong):
            load_model(small, "cpu", torch.float32)


MEASURE = """
import sys, torch, torch._dynamo
from pathlib import Path
sys.path.insert(0, sys.argv[6])
from memory import peak_of
from moshivis_ros.model.checkpoint import load_model, quantize_checkpoint

what, form, warm, source, out = *sys.argv[1:3], *map(Path, sys.argv[3:6])
load_model(warm, "cpu", torch.bfloat16, form)  # what torch itself loads on first use is not the model's
work = {
    "load and quantise": lambda: load_model(source, "cpu", torch.bfloat16, form),
    "quantise a file": lambda: quantize_checkpoint(source, out, form),
    "load": lambda: load_model(out, "cpu", torch.bfloat16),
}
print(peak_of(work[what])[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("form", FORMS)
def test_memory_holds_what_is_quantised_and_one_tensor(tiny: Path, tmp_path: Path, form: str) -> None:
    """Loading and quantising, writing quantised weights, and loading those."""
    config = dataclasses.replace(ModelConfig.preset("tiny"), dim=1024, num_heads=8, num_layers=8)
    # Tensors of the released model are too large for malloc's heap, which keeps holes where tensors were.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    with torch.device("meta"):
        layout = MoshiVis(config).state_dict()
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    config.save(source)
    write(
        {name: torch.ones(t.shape, dtype=torch.bfloat16) for name, t in layout.items()}, source / config.model
    )
    largest = 2 * max(t.numel() for t in layout.values())
    for what in ("quantise a file", "load and quantise", "load"):
        command = [sys.executable, "-c", MEASURE, what, form, tiny, source, out, Path(__file__).parent]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peak = int(done.stdout)
        size = (out / config.model).stat().st_size
        assert size > 5 * largest and (source / config.model).stat().st_size > 1.9 * size
        assert 0.9 * size < peak < 1.1 * size + largest


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
def test_on_a_gpu_as_on_a_cpu(tiny: Path, form: str) -> None:
    found = [
        steps(load_model(tiny, device, torch.bfloat16, form)).float().cpu() for device in ("cpu", "cuda")
    ]
    assert torch.cosine_similarity(*found).min() > 0.99


def test_another_form_is_refused(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="int8, int4, not 'int3'"):
        load_model(tiny, "cpu", torch.float32, "int3")


def quantized(weight: torch.Tensor, form: str) -> torch.nn.Module:
    """The layer that takes the place of a linear one in a model."""
    model = torch.nn.Module()
    model.llm = torch.nn.Sequential(torch.nn.Linear(*weight.T.shape, bias=False))
    model.llm[0].weight = torch.nn.Parameter(weight)
    model.depformer_in = model.depformer = model.audio_linears = torch.nn.ModuleList()
    return quantize(model, form).llm[0]  # type: ignore[arg-type]


def steps(model: MoshiVis, count: int = 12) -> torch.Tensor:
    """Text logits [count, card] with the model's own tokens left out: every model sees the same."""
    stream = Stream(model)
    codes = torch.randint(model.config.audio_card, (count, 1, 8), generator=torch.Generator().manual_seed(0))
    rows = []
    with torch.no_grad():
        for code in codes.to(stream.offset.device):
            column = stream.write_user(code)
            column[:, :9] = column.new_tensor([5, *range(8)])
            rows.append(stream.temporal(column)[1][0])
    return torch.stack(rows)


def size(model: MoshiVis) -> int:
    """Bytes of what the quantiser is for."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    skip = ("image_prefix", "emb", "kv_proj")
    return sum(t.numel() * t.element_size() for name, t in tensors if not any(s in name for s in skip))
