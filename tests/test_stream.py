"""The streaming step: static state, token delays, sampling, refusals. Numerical equality is test_verify's."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moshivis_ros.errors import ConfigError, ImageError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import GREEDY, MAX_TOP_K, Sampling, sample
from moshivis_ros.model.stream import Stream

TINY = dataclasses.replace(ModelConfig.preset("tiny"), context=12)


def random_model(config: ModelConfig) -> MoshiVis:
    torch.manual_seed(7)
    model = MoshiVis(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def model() -> MoshiVis:
    return random_model(TINY)


def user_codes(steps: int, config: ModelConfig, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, config.audio_card, (steps, batch, config.user_q), generator=generator)


def picture(model: MoshiVis, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.image_kv(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size)))


class NoSync(TorchDispatchMode):
    """Fails when a tensor's value is brought to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func is not torch.ops.aten._local_scalar_dense.default, "the step looks at a value on the host"
        return func(*args, **(kwargs or {}))


def test_step_compiles_whole_and_keeps_its_buffers(model: MoshiVis) -> None:
    stream = Stream(model, max_image_tokens=300)
    compiled = torch.compile(stream.forward, fullgraph=True, dynamic=False, backend="eager")
    codes = user_codes(30, TINY)
    pictures = [None, picture(model, 56), picture(model, 238)]  # of 16 and 289 tokens
    with torch.no_grad():
        for bucket in (0, *stream.buckets):  # all graphs there are
            stream.bucket = bucket
            compiled(codes[0])
        stream.reset()
        addresses = {name: buffer.data_ptr() for name, buffer in stream.named_buffers()}
        torch._dynamo.config.error_on_recompile = True
        try:
            for step, code in enumerate(codes):
                stream.set_image(pictures[step % 3])
                compiled(code)
        finally:
            torch._dynamo.config.error_on_recompile = False
    assert {name: buffer.data_ptr() for name, buffer in stream.named_buffers()} == addresses
    assert int(stream.offset) == 30


def test_step_never_waits_for_the_device(model: MoshiVis) -> None:
    stream = Stream(model)
    with torch.no_grad(), NoSync():
        for bucket in (0, *stream.buckets):
            stream.bucket = bucket
            stream(user_codes(1, TINY)[0])


def test_int8_window_loses_little(model: MoshiVis) -> None:
    """Past its end, with the same tokens forced on both; the recorded step is the plain one; a reset forgets."""
    exact, small = Stream(model), Stream(model, kv_cache="int8")
    assert small.kv.dtype == torch.int8 and small.kv.shape == exact.kv.shape
    errors = []
    for code in user_codes(30, TINY):
        with torch.no_grad():
            column = exact.write_user(code)
            column[:, :9] = torch.arange(9)
            logits = [stream.temporal(column)[1] for stream in (exact, small)]
        errors.append(float((logits[1] - logits[0]).norm() / logits[0].norm()))
    assert 0 < max(errors) < 0.02
    recorded = Stream(model, kv_cache="int8")
    recorded.record()
    for stream in (small, recorded):
        stream.reset()
        stream.set_sampling(GREEDY)
        assert not stream.kv_scales.any()
    for code in user_codes(30, TINY):
        assert torch.equal(small.step(code).tokens, recorded.step(code).tokens)
    assert torch.equal(small.kv, recorded.kv) and small.kv.any(dim=-1).all()
    with pytest.raises(ConfigError, match="int8 or None .* not 'int4'"):
        Stream(model, kv_cache="int4")


def test_picture_may_be_smaller_than_the_cache(model: MoshiVis) -> None:
    outputs = []
    for room in (16, 36):
        stream = Stream(model, max_image_tokens=room)
        stream.set_sampling(GREEDY)
        if room == 36:
            stream.set_image(picture(model, 84))  # what it leaves behind must not be seen
        stream.set_image(picture(model, 56))
        outputs.append([stream.step(code) for code in user_codes(15, TINY)])
    for small, large in zip(*outputs, strict=True):
        assert torch.equal(small.tokens, large.tokens)
        torch.testing.assert_close(small.gates, large.gates)


@pytest.mark.parametrize("tokens, bucket", [(1, 256), (256, 256), (257, 576), (576, 576), (577, 600)])
def test_a_picture_costs_its_bucket_only(model: MoshiVis, tokens: int, bucket: int) -> None:
    """Recorded for every bucket once; what lies between picture and bucket is masked."""
    k, v = torch.randn(2, 1, TINY.num_heads, 600, 16, generator=torch.Generator().manual_seed(tokens))
    exact, recorded = Stream(model, max_image_tokens=tokens), Stream(model, max_image_tokens=600)
    recorded.record()
    record = dict(recorded._steps)
    for stream in (exact, recorded):
        stream.set_sampling(GREEDY)
    recorded.set_image((k, v))  # what it leaves behind must not be seen
    for stream in (exact, recorded):
        stream.set_image((k[:, :, :tokens], v[:, :, :tokens]))
    assert recorded.bucket == bucket
    for beyond in (recorded.image_k, recorded.image_v):
        beyond[:, :, bucket:] = torch.nan  # must not even be read
    for code in user_codes(15, TINY):
        expected, found = exact.step(code), recorded.step(code)
        assert torch.equal(expected.tokens, found.tokens)
        torch.testing.assert_close(expected.gates, found.gates)
    assert recorded._steps == record  # nothing was recorded while it talked


def test_picture_larger_than_the_cache_is_refused(model: MoshiVis) -> None:
    with pytest.raises(ImageError, match="36 tokens.*holds 16.*image_size"):
        Stream(model, max_image_tokens=16).set_image(picture(model, 84))


@pytest.mark.parametrize("delays", [(0, 0, 1, 0, 1), (2, 0, 1, 3, 0), (0, 3, 0, 1, 2), (0, 0, 0, 0, 0)])
def test_delays_equal_an_unrolled_loop(delays: tuple[int, ...]) -> None:
    """Every stream as an ordinary list without end, read at its place; no ring, no scatter."""
    config = dataclasses.replace(TINY, n_q=4, dep_q=2, delays=delays)
    model = random_model(config)
    codes = user_codes(20, config)
    stream, bare = Stream(model), Stream(model)
    stream.set_sampling(GREEDY)
    own: list[list[int]] = [[-99] for _ in range(3)]  # own[stream][t]; nothing is generated for t = 0
    for t, code in enumerate(codes):
        column = []
        for k, delay in enumerate(delays):
            if t <= delay:
                column.append(config.audio_card if k else config.text_card)
            else:
                column.append(own[k][t] if k < 3 else int(codes[t - delay, 0, k - 3]))
        with torch.no_grad():
            hidden, logits, _ = bare.temporal(torch.tensor([column]))
            text = logits.argmax(-1)
            audio = bare.depformer(hidden, text, lambda _, logits: logits.argmax(-1))[0]
        for k, token in enumerate([int(text), *audio.tolist()]):
            own[k].append(token)
        out = stream.step(code)
        assert stream.warm == (t + 1 > max(delays))
        if stream.warm:
            assert out.tokens[0].tolist() == [own[k][t + 1 - max(delays) + delays[k]] for k in range(3)]


def test_batch_equals_single_conversations(model: MoshiVis) -> None:
    codes = user_codes(15, TINY, batch=2)
    both = Stream(model, batch_size=2)
    both.set_sampling(GREEDY)
    together = [both.step(code) for code in codes]
    for row in range(2):
        alone = Stream(model)
        alone.set_sampling(GREEDY)
        for step, code in enumerate(codes):
            assert torch.equal(alone.step(code[row : row + 1]).tokens[0], together[step].tokens[row])


def test_reset_starts_over(model: MoshiVis) -> None:
    stream = Stream(model)
    stream.set_sampling(Sampling(), seed=5)
    first = [stream.step(code).tokens.tolist() for code in user_codes(20, TINY)]
    stream.reset()
    stream.set_sampling(Sampling(), seed=5)
    assert [stream.step(code).tokens.tolist() for code in user_codes(20, TINY)] == first
    stream.reset()
    stream.set_sampling(Sampling(), seed=6)
    assert [stream.step(code).tokens.tolist() for code in user_codes(20, TINY)] != first


@pytest.mark.parametrize("bad", [-2, -100, TINY.audio_card + 1])
def test_ids_outside_the_table_are_refused(model: MoshiVis, bad: int) -> None:
    stream = Stream(model)
    codes = user_codes(1, TINY)[0]
    codes[0, 3] = bad
    with pytest.raises(ValueError, match=f"audio codes must be -1 .*{bad}"):
        stream.step(codes)
    assert stream.steps == 0
    with pytest.raises(IndexError):  # and below the check no layer takes it for row 0
        model.audio_emb[0](torch.tensor([[bad]]))


def test_codes_of_another_shape_are_refused(model: MoshiVis) -> None:
    with pytest.raises(ValueError, match=r"int64 \[1, 8\]"):
        Stream(model).step(torch.zeros(1, 7, dtype=torch.int64))


def test_sampling_follows_the_distribution() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, -1.0]]).expand(20000, 5)
    race = -torch.empty(20000, MAX_TOP_K).exponential_().log()
    race[:, 3:] = -torch.inf
    tokens = sample(logits, torch.tensor(0.5), race)
    share = torch.bincount(tokens, minlength=5) / 20000
    expected = torch.softmax(torch.tensor([-torch.inf, 1.0, 2.0, 3.0, -torch.inf]) / 0.5, 0)
    assert torch.allclose(share, expected, atol=0.01)


def test_temperature_zero_takes_the_first_of_equals() -> None:
    logits = torch.tensor([[1.0, 5.0, 5.0, 0.0]])
    assert sample(logits, torch.tensor(0.0), torch.zeros(1, MAX_TOP_K)).tolist() == [1]


def test_a_temperature_that_is_not_given_is_the_one_that_suits_the_checkpoint() -> None:
    config = dataclasses.replace(TINY, text_temperature=0.25, audio_temperature=0.5)
    stream = Stream(random_model(config))
    assert stream.temperature.tolist() == [0.25, 0.5]
    stream.set_sampling(Sampling(audio_temperature=0.0))
    assert stream.temperature.tolist() == [0.25, 0.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"text_temperature": -0.1},
        {"audio_temperature": float("nan")},
        {"text_top_k": 0},
        {"audio_top_k": 251},
    ],
)
def test_sampling_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
