"""Is this network the reference? Replays a checkpoint's golden data and compares every array.

A golden folder holds config.yaml, model.safetensors and golden.npz: inputs and outputs of the original
PyTorch code (kyutai-labs/moshivis, kyuteye_pt) on that checkpoint, greedy, in float32. It needs no codec and
no tokenizer.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.image_encoder import normalize, resize
from moshivis_ros.model.kernels.form import INTERPRETED
from moshivis_ros.model.lm import MoshiVis, reported_gate
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import StepOutput, Stream

Arrays = dict[str, NDArray[Any]]
KV = tuple[Tensor, Tensor]

# float32: largest absolute error. Logits are of size 10; layer_out and dep_out are residual streams.
TOLERANCE = 1e-5
TOLERANCES = {"text_logits": 2e-4, "audio_logits": 2e-4, "layer_out": 1e-4, "dep_out": 1e-4}
# Other types, fed with the golden tokens: root mean square of the error over that of the array.
LOW_PRECISION_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.01}
RUNS = ("image", "swap", "noimage", "late", "zerotok")


def run(
    folder: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], None] = print,
    runs: Sequence[str] = RUNS,
    steps: int | None = None,
) -> bool:
    """Replay all golden data of ``folder``; one line a check goes to ``report``. True when everything agrees.

    ``runs`` and ``steps`` (of each, None: all) are for those who have no time: what is left out is not compared.

    In float32 the network runs free (greedy) and every token must be equal. In bfloat16 and float16 it is
    fed the golden tokens, because one near tie would make all that follows differ.
    Raises CheckpointError when the folder or its golden data cannot be used.
    """
    folder = Path(folder)
    golden, settings = _read(folder)
    # Rounded products would hide what is being looked for.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = load_model(folder, device, dtype)
    check = _Checks(golden, dtype, report, steps)
    with torch.no_grad():
        pictures = {name: _image(check, model, name) for name in settings["images"]}
        room = max(k.shape[2] for k, _ in pictures.values())
        recorded = None
        if check.exact and not INTERPRETED:  # there a recording is the step itself
            recorded = Stream(model, max_image_tokens=room)
            recorded.record()
            recorded.set_sampling(GREEDY)
        for name in runs:
            _conversation(check, model, name, partial(_picture, name, pictures, settings), room, recorded)
    unknown = sorted(set(golden) - check.seen) if runs == RUNS else []
    for array in unknown:
        report(f"FAIL  {array}: nothing here knows what this array is")
    failures = check.failures + len(unknown)
    report(f"{folder}: {check.count} checks, " + (f"{failures} FAILED" if failures else "all passed"))
    report(f"largest logit error {check.logit_error:.1e} ({str(dtype).removeprefix('torch.')}, {device})")
    return failures == 0


def _read(folder: Path) -> tuple[Arrays, dict[str, Any]]:
    path, config = folder / "golden.npz", folder / "config.yaml"
    for file in (path, config):
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing: `verify` needs a folder with golden data, such as tests/golden/tiny_a"
            )
    try:
        with np.load(path, allow_pickle=False) as archive:
            golden = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read as a numpy archive: {error}") from error
    settings = yaml.safe_load(config.read_text(encoding="utf-8")).get("golden")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{config} has no section golden:, which says how the runs were made")
    return golden, settings


def _picture(run_name: str, pictures: dict[str, KV], settings: dict[str, Any], step: int) -> KV | None:
    """The picture that the reference attended to at this step of this run."""
    if run_name == "noimage" or (run_name == "late" and step < settings["late_at_step"]):
        return None
    return pictures["b" if run_name == "swap" and step >= settings["swap_at_step"] else "a"]


class _Checks:
    """Compares arrays with the golden ones and keeps the score."""

    def __init__(
        self, golden: Arrays, dtype: torch.dtype, report: Callable[[str], None], steps: int | None
    ) -> None:
        self.golden = golden
        self.steps = steps
        self.exact = dtype == torch.float32
        self.relative = LOW_PRECISION_TOLERANCE.get(dtype, 0.0)
        self.report = report
        self.seen: set[str] = set()
        self.count = self.failures = 0
        self.logit_error = 0.0

    def expected(self, name: str) -> NDArray[Any]:
        if name not in self.golden:
            raise CheckpointError(f"golden.npz has no array {name!r}")
        self.seen.add(name)
        return self.golden[name][: self.steps if "/" in name else None]  # those of a run have a row for each step

    def equal(self, name: str, found: NDArray[Any], allowed: int = 0) -> None:
        """Integers: equal, or at most ``allowed`` apart."""
        expected = self.expected(name)
        if found.shape != expected.shape:
            return self._line(name, False, f"shape {found.shape}, expected {expected.shape}")
        difference = np.abs(found.astype(np.int64) - expected)
        wrong = np.argwhere(difference > allowed)
        at = f", first at {wrong[0].tolist()} of {list(found.shape)}" if len(wrong) else ""
        self._line(name, not len(wrong), f"{len(wrong)} of {found.size} differ (allowed: by {allowed}){at}")

    def close(self, name: str, found: NDArray[Any]) -> None:
        """Floats: within the tolerance of the type."""
        expected = self.expected(name)
        if found.shape != expected.shape:
            return self._line(name, False, f"shape {found.shape}, expected {expected.shape}")
        difference = found.astype(np.float64) - expected
        largest = float(np.abs(difference).max())
        if name.endswith("logits"):
            self.logit_error = max(self.logit_error, largest)
        tolerance = TOLERANCES.get(name.split("/")[-1], TOLERANCE)
        if self.exact:
            return self._line(
                name, largest <= tolerance, f"max error {largest:.1e} (tolerance {tolerance:.0e})"
            )
        size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
        error = float(np.sqrt(np.mean(difference**2))) / max(size, 1e-6)
        self._line(
            name, error <= self.relative, f"relative error {error:.1e} (tolerance {self.relative:.0e})"
        )

    def agree(self, name: str, same: bool) -> None:
        """Something that is compared with the plain step, not with the golden data."""
        self._line(name, same, "as in the plain step" if same else "differs from the plain step")

    def _line(self, name: str, passed: bool, text: str) -> None:
        self.count += 1
        self.failures += not passed
        self.report(f"{'ok  ' if passed else 'FAIL'}  {name}: {text}")


def _image(check: _Checks, model: MoshiVis, name: str) -> KV:
    """The image path, each stage fed by our own stage before it."""
    weight = model.llm.text_emb.weight
    prefix, shared = model.image_prefix, model.llm.transformer.shared_cross_attention
    size = check.expected(f"image_{name}_resized_u8").shape[-1]
    resized = resize(torch.from_numpy(check.expected(f"image_{name}_raw_u8")), size)
    # torch's 8-bit bicubic has another rounding on other processors.
    check.equal(
        f"image_{name}_resized_u8", resized.numpy(), int(platform.machine() not in ("x86_64", "AMD64"))
    )
    pixels = normalize(resized)[None].to(weight.device)
    patches = size // model.config.siglip.patch_size
    encoded = prefix.enc.model(pixels)
    projected = prefix.proj_xa(encoded)
    source = prefix.norm_xa(projected)
    k, v = shared.keys_values(source)
    stages = {
        "pixel_values": pixels,
        "pos_embed": prefix.enc.model.embeddings.position_table(patches, patches)[None],
        "enc_out": encoded,
        "proj": projected,
        "ca_src": source,
        "k": k.transpose(1, 2).flatten(2),
        "v": v.transpose(1, 2).flatten(2),
    }
    for stage, found in stages.items():
        check.close(f"image_{name}_{stage}", _numpy(found))
    return k, v


def _conversation(
    check: _Checks,
    model: MoshiVis,
    name: str,
    picture_at: Callable[[int], KV | None],
    room: int,
    replayed: Stream | None,
) -> None:
    """One run: step by step through the user's codes, comparing what was recorded on the way.

    ``replayed`` (Stream.record) runs the same beside it and must answer the same.
    """
    own = f"{name}/user_codes"
    codes = check.expected(own if own in check.golden else "image/user_codes").astype(np.int64)
    stream = Stream(model, max_image_tokens=room)
    stream.set_sampling(GREEDY)
    if replayed is not None:
        replayed.reset()
        replayed.set_image(None)
    current: KV | None = None
    rows: dict[str, list[NDArray[Any]]] = {}
    max_delay = model.config.max_delay
    with _recording(model) as recorded:
        for step, row in enumerate(codes):
            wanted = picture_at(step)
            if wanted is not current:
                stream.set_image(wanted)
                if replayed is not None:
                    replayed.set_image(wanted)
                current = wanted
            user = torch.from_numpy(row)[None].to(stream.offset.device)
            recorded.clear()
            if replayed is not None:
                out = stream.step(user)
                rows.setdefault("replayed", []).append(_numpy(replayed.step(user).tokens[0]))
            else:
                text, audio = (
                    check.golden[f"{name}/text_token"][step],
                    check.golden[f"{name}/audio_tokens"][step],
                )
                out = _forced_step(stream, user, text, audio)
            alpha = reported_gate(out.gates)[0]
            values = {
                "input_tokens": stream.tokens[0, :, step % stream.tokens.shape[2]],
                "text_token": recorded["text_logits"].flatten().argmax(),
                "audio_tokens": torch.stack(
                    [recorded[f"audio_logits{i}"].flatten().argmax() for i in range(model.config.dep_q)]
                ),
                "text_logits": recorded["text_logits"].flatten(),
                "audio_logits": torch.stack(
                    [recorded[f"audio_logits{i}"].flatten() for i in range(model.config.dep_q)]
                ),
                "gate_alpha": alpha,
                "gate_returned": alpha if stream.warm else torch.zeros(()),
                "gate_per_layer": out.gates[0],
                "out_tokens": out.tokens[0] if stream.warm else torch.full_like(out.tokens[0], -1),
                "transformer_out": recorded["transformer_out"].flatten(),
                "layer_out": torch.stack(
                    [recorded[f"layer{i}"].flatten() for i in range(model.config.num_layers)]
                ),
                "dep_out": torch.stack(
                    [recorded[f"dep_out{i}"].flatten() for i in range(model.config.dep_q)]
                ),
            }
            for key, value in values.items():
                rows.setdefault(key, []).append(_numpy(value))
    if replayed is not None:
        same = np.array_equal(rows.pop("replayed")[max_delay:], rows["out_tokens"][max_delay:])
        check.agree(f"{name}/out_tokens, replayed", same)
    for key, per_step in rows.items():
        array = f"{name}/{key}"
        if key in ("layer_out", "dep_out") and array not in check.golden:
            continue  # recorded in some runs only: they are large
        found = np.stack(per_step)
        if not np.issubdtype(found.dtype, np.integer):
            check.close(array, found)
        elif check.exact or key in ("input_tokens", "out_tokens"):
            check.equal(array, found)
        else:
            agree = float(np.mean(found == check.expected(array)))
            check.report(f"      {array}: {agree:.1%} of the most likely tokens agree")


def _forced_step(stream: Stream, codes: Tensor, text: Any, audio: NDArray[Any]) -> StepOutput:
    """A step in which the golden tokens are chosen, whatever the logits say."""
    forced = torch.from_numpy(audio.astype(np.int64)).to(codes.device)[None]
    column = stream.write_user(codes)
    hidden, _, gates = stream.temporal(column)
    token = torch.full_like(forced[:, 0], int(text))
    chosen = stream.depformer(hidden, token, lambda codebook, _: forced[:, codebook])
    stream.steps += 1
    return StepOutput(stream.write_own(token, chosen), gates)


@contextmanager
def _recording(model: MoshiVis) -> Iterator[dict[str, Tensor]]:
    """Collects what the modules see and give in the latest step."""
    recorded: dict[str, Tensor] = {}
    handles = []

    def keep(module: nn.Module, output: str | None = None, input: str | None = None) -> None:
        def hook(_: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
            if output is not None:
                recorded[output] = result[0] if isinstance(result, tuple) else result
            if input is not None:
                recorded[input] = inputs[0]

        handles.append(module.register_forward_hook(hook))

    for i, layer in enumerate(model.llm.transformer.layers):
        keep(layer, output=f"layer{i}")
    keep(model.llm.out_norm, output="transformer_out")
    keep(model.llm.text_linear, output="text_logits")
    for i, linear in enumerate(model.audio_linears):
        keep(linear, output=f"audio_logits{i}", input=f"dep_out{i}")
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _numpy(x: Tensor) -> NDArray[Any]:
    return np.array((x.float() if x.is_floating_point() else x).cpu().numpy())
