"""Which form of a model is chosen, for which memory and which machine, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moshivis_ros import Conversation
from moshivis_ros.errors import CheckpointError
from moshivis_ros.model import device, fit
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.fit import Machine, choose, decide, expect
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import Quantizer
from moshivis_ros.model.weights import unfilled

RELEASED = ModelConfig.preset("moshika-vis")
MIMI = 317_200_000
DESKTOP = Machine("cuda", 950e9, 2.5e-6, fused=True)
ORIN = Machine("cuda", 190e9, 5e-6, fused=True)
PROCESSOR = Machine("cpu", 15e9, 0.0, fused=False)


def forms(machine: Machine) -> list[fit.Form]:
    dtype = torch.bfloat16 if machine.kind == "cuda" else torch.float32
    return expect(machine, RELEASED, dtype, MIMI)


@pytest.fixture(scope="module")
def on_a_desktop() -> list[fit.Form]:
    return forms(DESKTOP)


@pytest.mark.parametrize(
    ("free", "name", "words"),
    [
        (23.5, "bfloat16", "23.5 GB are free, it takes 19.0"),
        (18.5, "bfloat16 with an int8 window", "18.5 GB are free and bfloat16 takes 19.0"),
        (15.5, "int8", "15.5 GB are free"),
        (10.5, "int8 with an int8 window", "10.5 GB are free and int8 takes 10.8"),
        (7.6, "int4", "because 7.6 GB are free"),
        (7.0, "int4 with an int8 window", "because 7.0 GB are free"),
    ],
)
def test_the_best_that_fits(on_a_desktop: list[fit.Form], free: float, name: str, words: str) -> None:
    best, reason = decide(on_a_desktop, int(free * 1e9), "cuda")
    assert best.name == name
    assert reason.startswith(name) and words in reason and "\n" not in reason


def test_the_line_says_what_a_frame_takes_and_what_smaller_weights_would(
    on_a_desktop: list[fit.Form],
) -> None:
    _, reason = decide(on_a_desktop, 11_400_000_000, "cuda")
    # 9.8 GB over 950 GB/s, by 1.2, 2049 launches of 2.5 us, Mimi: 18 to 19 ms; int4 reads 5.9 GB
    assert reason == (
        "int8, because 11.4 GB are free and bfloat16 with an int8 window takes 18.2; expect 19 ms a frame; "
        "int4 would take 14 ms"
    )


def test_too_slow_is_not_taken_however_much_fits() -> None:
    best, reason = decide(forms(ORIN), 58_000_000_000, "cuda")
    assert best.name == "int4" and "because int8 with an int8 window would take 74 ms a frame" in reason


def test_the_owner_of_a_cpu_is_told_the_truth() -> None:
    best, reason = decide(forms(PROCESSOR), 60_000_000_000, "cpu")
    assert best.quantize == "int4"
    assert "expect 1.1 s a frame, which is too slow to talk live (80 ms)" in reason


def test_what_does_not_fit_is_refused_before_it_is_loaded(on_a_desktop: list[fit.Form]) -> None:
    with pytest.raises(
        CheckpointError, match=r"int4 with an int8 window .* needs 6.8 GB on cuda, but 5.0 are free"
    ):
        decide(on_a_desktop, 5_000_000_000, "cuda")


def test_what_is_chosen_is_not_refused_when_it_is_loaded(on_a_desktop: list[fit.Form]) -> None:
    """Loading does not know the form of each layer before it is filled, and estimates."""
    with unfilled():
        model = MoshiVis(RELEASED).bfloat16()
    plain, int8, int4 = (form.size for form in on_a_desktop if form.kv_cache is None)
    for name, size in (("int8", int8), ("int4", int4)):
        assert abs(plain - Quantizer(model, name).saved_bytes(torch.bfloat16) - size) < 20e6


def test_without_triton_smaller_weights_are_no_faster() -> None:
    plain, *_, int4 = (f.seconds for f in forms(DESKTOP._replace(fused=False)) if f.kv_cache is None)
    assert int4 > plain


def test_the_miniature_stays_as_it_is_and_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "measure", None)
    with Conversation.load("builtin", device="cpu") as conversation:
        assert conversation.choice == (None, None, "", True)
        assert conversation._model.llm.out_norm.alpha.dtype == torch.float32
        assert not [m for m in conversation._model.modules() if "Int8" in type(m).__name__]


def test_it_loads_what_was_chosen(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SMALL", 0)
    monkeypatch.setattr(fit, "measure", lambda device: PROCESSOR)
    mimi = next(tiny.glob("tokenizer-*")).stat().st_size
    *_, wanted, _, _ = expect(PROCESSOR, ModelConfig.load(tiny), torch.float32, mimi)
    monkeypatch.setattr(fit, "free_memory", lambda device: wanted.size + fit.WORKING)
    with Conversation.load(tiny, device="cpu") as conversation:
        assert conversation.choice[:2] == ("int8", "int8")
        assert conversation.choice.reason.startswith("int8 with an int8 window, because 0.5 GB are free")
        assert [m for m in conversation._model.modules() if type(m).__name__ == "Int8Linear"]
        assert conversation._stream.kv.dtype == torch.int8
    cpu, number = torch.device("cpu"), torch.float32
    assert choose(tiny, cpu, number, "none", "none") == (None, None, "", True)
    with pytest.raises(CheckpointError, match="float32 with an int8 window"):
        choose(tiny, cpu, number, "none")


def test_weights_that_are_quantised_stay_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moshivis_ros.model.checkpoint import quantize_checkpoint

    quantize_checkpoint(tiny, tmp_path / "int8", "int8")
    monkeypatch.setattr(fit, "SMALL", 0)
    monkeypatch.setattr(fit, "measure", lambda device: PROCESSOR)
    monkeypatch.setattr(fit, "free_memory", lambda device: 10**10)
    choice = choose(tmp_path / "int8", torch.device("cpu"), torch.float32)
    assert choice[:2] == (None, None) and choice.reason.startswith("int8: 10.0 GB are free")


def test_free_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    everything = device.free_memory(cpu)
    assert everything > 10**8
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("70000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 20000000\n")
    assert device.free_memory(cpu) > 10**8
    (tmp_path / "memory.max").write_text("100000000\n")
    assert device.free_memory(cpu) == 50_000_000


@pytest.mark.gpu
def test_a_gpu_is_measured() -> None:
    machine = fit.measure(torch.device("cuda"))
    assert 5e10 < machine.bandwidth < 2e13 and 2e-7 < machine.launch < 5e-5
