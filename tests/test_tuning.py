"""The stage adapters: what learns and what does not, processes, kills, files, and where the files are accepted."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import killed
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from samples import write_folder
from torch import nn

from moshivis_ros.bench import command
from moshivis_ros.cli import main
from moshivis_ros.conversation import Conversation
from moshivis_ros.errors import CheckpointError, ConfigError, MissingDependencyError, OutputError
from moshivis_ros.model.adapters import FILE, Adapters, is_adapter
from moshivis_ros.model.checkpoint import load_model, quantize_checkpoint
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import init_checkpoint
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import StoredWeight, rounded_int8
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training import tune
from moshivis_ros.training.batches import Batches
from moshivis_ros.training.folder import read
from moshivis_ros.training.forward import Sight, audio_logits, columns, temporal
from moshivis_ros.training.hear import speak
from moshivis_ros.training.learner import Frozen8, Learner, Options, freeze, trained
from moshivis_ros.training.prepared import Prepared
from moshivis_ros.training.train import Settings, network_of, train

pytest.importorskip("accelerate")
SETTINGS = Settings(
    "adapters",
    "",
    8,
    3e-3,
    warmup=2,
    log_every=1,
    bfloat16=False,
    save_every=0.0,
    options={"batch": 4, "seconds": 3.0},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint `model` and the data `data`."""
    folder = tmp_path_factory.mktemp("tuning")
    init_checkpoint(folder / "model")
    write_folder(folder / "data")
    return folder


def settings(made: Path, out: str, **options: Any) -> Settings:
    paths = {"model": str(made / "model"), "data": [str(made / "data")], "cache": str(made / "cache")}
    return dataclasses.replace(
        SETTINGS, out=str(made / out), options={**SETTINGS.options, **paths, **options}
    )


@pytest.fixture(scope="module")
def once(made: Path) -> Path:
    """The out folder of a run of one process."""
    assert train(settings(made, "once"))
    return made / "once"


def curve(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {name: row[name] for name in row if name not in ("seconds", "samples/s", "norm")} for row in lines
    ]


def assert_same(one: Path, other: Path) -> None:
    first, second = curve(one), curve(other)
    assert [row["step"] for row in first] == [row["step"] for row in second] == list(range(1, 9))
    for a, b in zip(first, second):
        assert a == pytest.approx(b, rel=1e-4), a["step"]


def test_only_adapters_learn_and_have_a_state(made: Path, once: Path) -> None:
    rows = curve(once)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"], rows
    names = {name.removeprefix("model.") for name in network_of(once)}
    assert names and all(is_adapter(name) for name in names)
    state = load_file(once / "state.safetensors")
    optimizer = {name.split(".")[1] for name in state if name.startswith("optimizer.")}
    assert len(optimizer) == len(names)
    learned = load_file(once / FILE)
    layout = load_file(made / "model" / "model.safetensors")
    assert learned.keys() == {name for name in layout if is_adapter(name)}
    assert all(not torch.equal(learned[name], layout[name]) for name in learned)


def test_adapters_are_accepted_where_a_model_is(
    made: Path, once: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned, before = load_file(once / FILE), load_file(made / "model" / "model.safetensors")
    expected = {**before, **learned}
    assert main(["merge", str(made / "model"), str(once), str(made / "merged")]) == 0
    merged = load_file(made / "merged" / "model.safetensors")
    assert merged.keys() == before.keys() and all(torch.equal(merged[n], expected[n]) for n in merged)
    loaded = load_model(made / "model", "cpu", torch.float32, adapters=once).state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)

    def heard(folder: Path, **options: Any) -> list[Any]:
        conversation = Conversation.load(folder, seed=1, **options)
        conversation.see(np.full((40, 60, 3), 90, np.uint8), wait=True)
        return [conversation.step(np.zeros(1920, np.float32)).gate for _ in range(4)]

    assert heard(made / "model", adapters=str(once)) == heard(made / "merged")
    assert heard(made / "model", adapters=str(once)) != heard(made / "model")
    small = load_model(made / "model", "cpu", torch.float32, "int8", adapters=once)
    again = load_model(made / "merged", "cpu", torch.float32, "int8")
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values()))
    capsys.readouterr()
    assert main(["bench", "--adapters", str(once)]) == 2 and "--model" in capsys.readouterr().err
    measured = command._load(str(made / "model"), "tiny", torch.device("cpu"), torch.float32, None, str(once))
    assert torch.equal(measured.image_prefix.norm_xa.alpha, learned["image_prefix.norm_xa.alpha"])


def test_adapters_of_another_checkpoint_are_refused_by_name(made: Path, once: Path, tmp_path: Path) -> None:
    other = load_file(once / FILE)
    other["image_prefix.norm_xa.alpha"] = torch.ones(1, 1, 3)
    other["llm.nothing.weight"] = torch.ones(1)
    Adapters(other).save(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"(?s)norm_xa.alpha has the size \[1, 1, 3\].*llm.nothing.weight is unknown"
    ):
        load_model(made / "model", "cpu", torch.float32, adapters=tmp_path)
    with pytest.raises(CheckpointError, match="there are no adapters"):
        load_model(made / "model", "cpu", torch.float32, adapters=tmp_path / "nowhere")
    quantize_checkpoint(made / "model", tmp_path / "small", "int8")
    with pytest.raises(ConfigError, match="into the original ones"):
        load_model(tmp_path / "small", "cpu", torch.float32, adapters=once)
    with pytest.raises(ConfigError, match="train the original"):
        train(settings(made, "small", model=str(tmp_path / "small")))


def test_a_run_in_parts_and_small_batches_is_the_same(made: Path, once: Path) -> None:
    parts = dataclasses.replace(settings(made, "parts", batch=2, accumulate=2), minutes=0.0)
    runs = 1
    while not train(parts):
        runs += 1
        with (made / "parts" / "log.jsonl").open(
            "a"
        ) as log:  # as if it had been killed after the state was saved
            log.write(f'{{"step": {runs}, "loss": 0}}\n{{"step": {runs + 1}, "lo')
    assert runs == 8
    assert_same(once, made / "parts")
    a, b = load_file(once / FILE), load_file(made / "parts" / FILE)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_two_processes_one_of_which_is_killed_learn_the_same(made: Path, once: Path) -> None:
    half = settings(made, "two", batch=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "killed"])

    def run(dies: int | None) -> list[int | None]:
        both = [context.Process(target=killed.train, args=(half, rank, 2, port, dies)) for rank in (0, 1)]
        for process in both:
            process.start()
        for process in both:
            process.join(120)
        return [process.exitcode for process in both]

    first, second = run(3)
    assert first == -signal.SIGKILL
    assert second not in (0, None), "nobody can go on alone"
    assert len(curve(made / "two")) == 3
    shutil.copytree(made / "two", made / "alone")
    assert train(settings(made, "alone")), "one process goes on for two"
    assert_same(once, made / "alone")
    assert run(None) == [0, 0]
    assert_same(once, made / "two")


@pytest.mark.parametrize(("frozen", "tolerance"), [("as computed", 1e-4), ("int8", 1.0)])
def test_lora_is_what_is_loaded_afterwards(made: Path, tmp_path: Path, frozen: Any, tolerance: float) -> None:
    pytest.importorskip("peft")
    options = Options(str(made / "model"), ("",), lora_rank=2, lora_scale=1.5, frozen=frozen)
    weights, config = tune.checkpoint(options)
    model = tune.load(options, weights, config, torch.device("cpu"), torch.float32)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    lora = [name for name in learning if ".lora_" in name]
    assert len(lora) == 2 * 4 * config.num_layers and len(lora) < len(learning)
    with torch.no_grad():
        for name in lora:
            learning[name].normal_(std=0.3)
    trained(model, options, torch.float32).save(tmp_path)
    tokens = torch.randint(64, (1, 17, 12))
    plain, again = (load_model(made / "model", "cpu", torch.float32, adapters=a) for a in (None, tmp_path))
    logits = [temporal(each, columns(tokens, config), None).text_logits for each in (model, again, plain)]
    right, without = ((logits[0] - other).abs().max() for other in logits[1:])
    assert right < tolerance and without > 10 * tolerance, (right, without)


def test_frozen_int8_is_the_projects_int8_and_gradients_pass_it(made: Path) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(48, 32), torch.randn(5, 32, requires_grad=True)
    values, scales = rounded_int8(weight)
    layer = Frozen8(values, scales)
    exact = nn.functional.linear(x, values.float() * scales.float()[:, None])
    assert torch.allclose(layer(x), exact, atol=1e-4)
    stored = StoredWeight(values, scales).linear()
    assert torch.allclose(layer(x.bfloat16()).float(), stored(x.detach().bfloat16()).float(), atol=0.2)
    wanted = torch.autograd.grad(exact.square().sum(), x)[0]
    assert torch.allclose(torch.autograd.grad(layer(x).square().sum(), x)[0], wanted, rtol=1e-4, atol=1e-4)
    options = Options(str(made / "model"), ("",), frozen="int8")
    weights, config = tune.checkpoint(options)
    small = tune.load(options, weights, config, torch.device("cpu"), torch.float32)
    layers = [name for name, module in small.named_modules() if isinstance(module, Frozen8)]
    assert len(layers) == 4 * config.num_layers and not any("cross" in name for name in layers)
    assert train(dataclasses.replace(settings(made, "int8", frozen="int8"), bfloat16=True))
    assert curve(made / "int8")[-1]["loss"] < curve(made / "int8")[0]["loss"]


def test_lean_is_the_same_network_and_what_is_filled_up_changes_nothing(made: Path) -> None:
    torch.manual_seed(1)
    model = load_model(made / "model", "cpu", torch.float32)
    config = model.config
    tokens = torch.randint(64, (2, 17, 10))
    k, v = (torch.randn(2, config.num_heads, 8, config.dim // config.num_heads) for _ in range(2))
    mask = (torch.arange(10)[:, None] < 5) == (torch.arange(8) < 4)
    sight = Sight(k, v, mask.expand(2, 1, 10, 8), (torch.arange(10) > 2).float().expand(2, 10)[..., None])
    with torch.no_grad():
        both = [temporal(model, columns(tokens, config), sight, lean) for lean in (False, True)]
        assert torch.allclose(both[0].text_logits, both[1].text_logits, atol=1e-4)
        assert torch.allclose(both[0].gates, both[1].gates, atol=1e-5)
        sound = [
            audio_logits(model, both[0].hidden[0], tokens[0, 0], tokens[0, 1:9].T, lean)
            for lean in (False, True)
        ]
        assert torch.allclose(*sound, atol=1e-4)


def test_what_is_heard_on_the_way_is_what_the_stream_would_say(made: Path, once: Path) -> None:
    """Frame by frame through the code of the training, or as a conversation: the same tokens."""
    options = Options.of(settings(made, "once", adapters=str(once)).options)
    weights, config = tune.checkpoint(options)
    config = dataclasses.replace(config, text_temperature=0.0, audio_temperature=0.0)
    prepared = Prepared(made / "cache", weights, config, torch.float32)
    encode = Tokenizer.load(made / "model", config).encode
    batches = Batches(config, encode, read(options.data), prepared, 0.5, options.limits, 0)
    drawn = (batches.spoken(seed) for seed in range(100))
    batch = next(one for one in drawn if one and (one.shown == 0).all())  # one picture, from the beginning
    learner = Learner(tune.load(options, weights, config, torch.device("cpu"), torch.float32), options, False)
    said = speak(learner, batch)

    model = load_model(made / "model", "cpu", torch.float32, adapters=once)
    stream, prefix = Stream(model), model.image_prefix
    stream.set_sampling(Sampling(text_temperature=0.0, audio_temperature=0.0))
    with torch.no_grad():
        source = prefix.norm_xa(prefix.proj_xa(batch.pictures[:, 0]))
        stream.set_image(model.llm.transformer.shared_cross_attention.keys_values(source))
        user = batch.tokens[:, 1 + config.dep_q :]
        heard = [torch.full_like(user[..., 0], -1), *user.unbind(-1)]
        out = torch.stack([stream(frame).tokens[0] for frame in heard], 1)
    late = config.max_delay
    assert torch.equal(out[:, late:-1], said[:, : -late or None])
    assert len(set(said[0].tolist())) > 2, "it says something"


def test_a_run_leaves_what_it_said(made: Path, once: Path) -> None:
    (sound,) = (once / "heard").glob("*.wav")
    pcm, rate = soundfile.read(sound)
    told = json.loads(sound.with_suffix(".json").read_text())
    assert rate == 24000 and pcm.shape == (38 * 1920, 2) and pcm[:, 1].std() > 0
    assert sound.stem == "000008" and told.keys() == {"text", "wanted"} and told["wanted"]
    assert main(["look", str(once)]) == 0
    assert "./heard/000008.wav" in (once / "index.html").read_text(encoding="utf-8")


def test_learn_decides_what_learns(made: Path) -> None:
    def learning(**more: Any) -> set[str]:
        with torch.device("meta"):
            model = MoshiVis(ModelConfig.load(made / "model"))
        freeze(model, Options("", ("",), **more))
        return {name for name, p in model.named_parameters() if p.requires_grad}

    gates, adapters, everything = (learning(learn=learn) for learn in ("gates", "adapters", "all"))
    assert gates < adapters < everything
    assert all(".gate." in name for name in gates) and "image_prefix.proj_xa.weight" in adapters - gates
    assert "depformer_in.0.weight" in everything and not any(".enc." in name for name in everything)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learn": "everything"}, "learn: one of adapters, gates, all"),
        ({"speechless": 2}, "speechless: a number from 0 to 1"),
        ({"batches": 2}, "unknown key 'batches'"),
        ({"frozen": "int8", "learn": "all"}, "int8 weights cannot learn"),
        ({"adapters": "nowhere"}, "there are no adapters"),
        ({"data": "nowhere"}, "there is no folder nowhere"),
        ({"speechless_frames": 10}, "raise speechless_frames"),
    ],
)
def test_what_is_wrong_is_told_before_it_begins(made: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=words):
        train(settings(made, "wrong", **change))


def test_a_disk_that_cannot_hold_it_is_told_before(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(made)
    monkeypatch.setattr(tune.shutil, "disk_usage", lambda _: usage._replace(free=400_000))
    with pytest.raises(OutputError, match="needs 0.0 GB"):
        train(settings(made, "full"))
    monkeypatch.setattr(tune.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    assert train(dataclasses.replace(settings(made, "full"), steps=1))


def test_the_loss_is_the_sum_of_its_parts_by_their_weights(made: Path) -> None:
    model = load_model(made / "model", "cpu", torch.float32)
    learner = Learner(model, Options("", ("",), text_weight=2.0, audio_weight=0.5, gate_weight=3.0), False)
    sums, counts = torch.tensor([8.0, 6.0, 1.0, 2.0, 3.0, 4.0]), torch.tensor([4.0, 3.0, 2.0, 4.0, 0.0, 2.0])
    assert learner.loss(sums, counts) == 2 * 2 + 0.5 * 2 + 3 * 0.5


def test_weights_and_biases_are_told_the_log_where_a_project_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Told:
        def log(self, values: dict[str, float], step: int) -> None:
            told.append((step, values))

        def finish(self) -> None:
            told.append("end")

    def init(**about: Any) -> Told:
        told.append(about)
        return Told()

    run = dataclasses.replace(settings(made, "told", wandb="robots"), steps=2)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        train(run)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    assert train(run)
    about, *rows, end = told
    assert (about["project"], about["name"], end) == ("robots", "told", "end")
    assert about["config"]["learning_rate"] == run.learning_rate
    logged = [json.loads(line) for line in (made / "told" / "log.jsonl").read_text().splitlines()]
    for (step, values), row in zip(rows, logged, strict=True):
        assert {"step": step, "seconds": row["seconds"], **values} == row
