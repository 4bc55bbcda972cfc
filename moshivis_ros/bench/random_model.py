"""The network with random weights, made on the device in the form that it shall have: no copy is ever larger."""

from __future__ import annotations

from itertools import chain

import moshivis_ros.model  # noqa: F401  before torch: it says how to install torch when it is missing

# isort: split
import torch

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.packed import PackedEmbedding, PackedLinear
from moshivis_ros.model.quantize import Quantizer, StoredWeight

LEVELS = 73  # the deviation of levels -127..127


@torch.no_grad()
def random_model(
    config: ModelConfig,
    device: torch.device | str,
    dtype: torch.dtype,
    form: str | None = None,
    seed: int = 0,
) -> MoshiVis:
    """Weights that keep the size of a signal; with ``form`` int8 or int4 (see model.quantize.Quantizer)."""
    with torch.device("meta"):
        model = MoshiVis(config)
    quantizer = None if form is None else Quantizer(model, form)
    if quantizer is not None:
        quantizer.expect()
    state = {
        name: torch.empty(t.shape, dtype=dtype if t.is_floating_point() else t.dtype, device=device)
        for name, t in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    torch.manual_seed(seed)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name.endswith("alpha"):
            tensor.fill_(1)
        elif tensor.is_floating_point() and not name.endswith(".scales"):
            tensor.normal_(std=0.5 if "emb." in name else tensor[0].numel() ** -0.5)
        elif not tensor.is_floating_point():
            tensor.random_(*((-127, 128) if tensor.dtype == torch.int8 else (0, 256)))
    for module in model.modules():
        if isinstance(module, StoredWeight):
            _scale(module)
        elif isinstance(module, PackedEmbedding):
            module.scales.fill_(0.5 / LEVELS)
        elif isinstance(module, PackedLinear):
            module.scales.fill_(module.columns**-0.5 / LEVELS)
    if quantizer is not None:
        quantizer.shrink(model)
    return model.requires_grad_(False).eval()


def _scale(weight: StoredWeight) -> None:
    columns = weight.values.shape[1]
    if weight.values.dtype == torch.int8:
        weight.scales.fill_(columns**-0.5 / LEVELS)
    else:
        step, middle = weight.scales.unbind(-1)
        step.fill_((2 * columns) ** -0.5 / 4.6)  # levels 0..15, of 4.6
        middle.copy_(step / 2)  # of 0..15 the middle is 7.5, and 8 is what a level is counted from
