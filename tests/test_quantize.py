"""Weights in 8 and 4 bits: how much is lost, that it is really smaller, and that loading quantises on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import Int4Linear, Int8Linear, quantize
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind, limit", [("int8", 0.02), ("int4", 0.2)])
def test_a_layer_loses_little(kind: str, limit: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256, dtype=dtype) * torch.logspace(-2, 2, 64, dtype=dtype)[:, None]
    weight[:, 7] *= 5
    x = torch.randn(3, 256, dtype=dtype)
    layer = Int8Linear(weight) if kind == "int8" else Int4Linear(weight, 128)
    expected = x.float() @ weight.float().T
    error = (layer(x).float() - expected).square().mean(0) / expected.square().mean(0)  # of each channel
    assert layer(x).dtype == dtype
    assert 0 < error.sqrt().median() < limit and error.sqrt().max() < 5 * limit


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.ones(16, 128)
    weight[3] = 0
    for layer in (Int8Linear(weight), Int4Linear(weight, 64)):
        out = layer(torch.ones(1, 128))[0]
        assert out[3].abs() < 1e-3 and (out[4] - 128).abs() < 2


@pytest.mark.parametrize("form, smallest", [("int8", 0.95), ("int4", 0.75)])
def test_loading_quantises(tiny: Path, form: str, smallest: float) -> None:
    plain = load_model(tiny, "cpu", torch.float32)
    small = load_model(tiny, "cpu", torch.float32, form)
    again = quantize(load_model(tiny, "cpu", torch.float32), form)
    codes = torch.randint(plain.config.audio_card, (12, 1, 8), generator=torch.Generator().manual_seed(0))
    logits = [run(model, codes) for model in (plain, small, again)]
    assert torch.equal(logits[1], logits[2])
    assert not torch.equal(logits[0], logits[1])
    assert torch.cosine_similarity(logits[0], logits[1]).min() > smallest
    assert size(small) < (0.45 if form == "int8" else 0.4) * size(plain)
    for name in ("llm.text_emb.weight", "llm.out_norm.alpha", "image_prefix.norm_xa.alpha"):
        assert torch.equal(plain.get_parameter(name), small.get_parameter(name)), name


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
    model = torch.nn.Module()
    model.llm = torch.nn.Sequential(torch.nn.Linear(columns, 32, bias=False))
    model.depformer_in = model.depformer = model.audio_linears = torch.nn.ModuleList()
    x, weight = torch.randn(1, columns), model.llm[0].weight.detach()
    quantize(model, form)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(model.llm(x), x @ weight.T, atol=0.5, rtol=0.2)


def test_another_form_is_refused(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="int8, int4, not 'int3'"):
        load_model(tiny, "cpu", torch.float32, "int3")


def run(model: MoshiVis, codes: torch.Tensor) -> torch.Tensor:
    """Text logits [steps, card] with the model's own tokens left out: every model sees the same."""
    stream = Stream(model)
    rows = []
    with torch.no_grad():
        for code in codes:
            column = stream.write_user(code)
            column[:, :9] = column.new_tensor([5, *range(8)])
            rows.append(stream.temporal(column)[1][0])
    return torch.stack(rows)


def size(model: MoshiVis) -> int:
    """Bytes of what the quantiser is for."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    skip = ("image_prefix", "emb", "kv_proj")
    return sum(t.numel() * t.element_size() for name, t in tensors if not any(s in name for s in skip))
