from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from fakes.tiny import tiny_transformer
from onereward_pack.local_backend.acceleration.kv_cache import (
    CachedTensor,
    KVCacheFormat,
    kv_cache_formats,
)
from onereward_pack.local_backend.acceleration.masked_token_attention import (
    MaskedTokenAttention,
    TokenSets,
    kv_cache_bytes,
    masked_token_attention,
    token_sets,
)
from torch import Tensor

CPU, TEXT = torch.device("cpu"), 5
PLAIN = KVCacheFormat(torch.float32, change=True)
EIGHT_BITS = KVCacheFormat(torch.float8_e4m3fn, change=True)
REMEMBER: dict[str, Any] = {
    "text_tokens": TEXT,
    "branches": 2,
    "drift": 0.5,
    "kv_cache_format": PLAIN,
    "dtype": torch.float32,
}
SETS = TokenSets(torch.tensor([1, 2, 6]), torch.tensor([0, 3, 4, 5, 7]))


@pytest.fixture(scope="module")
def transformer() -> FluxTransformer2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_transformer().eval().requires_grad_(False)


def inputs(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(8, 3)
    ids[:, 1], ids[:, 2] = torch.arange(8) // 4, torch.arange(8) % 4
    return {
        "hidden_states": torch.randn(2, 8, 384, generator=generator),
        "encoder_hidden_states": torch.randn(2, TEXT, 32, generator=generator),
        "pooled_projections": torch.randn(2, 32, generator=generator),
        "timestep": torch.full((2,), 0.7),
        "guidance": torch.ones(2),
        "img_ids": ids,
        "txt_ids": torch.zeros(TEXT, 3),
        "return_dict": False,
    }


def only(tokens: Tensor, given: dict[str, Any]) -> dict[str, Any]:
    chosen = {
        "hidden_states": given["hidden_states"][:, tokens],
        "img_ids": given["img_ids"][tokens],
    }
    return given | chosen


@pytest.fixture
def attention(transformer: FluxTransformer2DModel) -> Iterator[MaskedTokenAttention]:
    with masked_token_attention(transformer, SETS, **REMEMBER) as kept:
        yield kept


def test_a_token_is_masked_if_one_of_its_pixels_is() -> None:
    mask = torch.zeros(1, 48, 64)
    mask[0, 16, 63] = 1
    assert token_sets(mask, 0).masked.tolist() == [7]
    assert token_sets(mask, 1).masked.tolist() == [2, 3, 6, 7, 10, 11]
    assert token_sets(mask, 1).retained.tolist() == [0, 1, 4, 5, 8, 9]


def test_the_share_counts_the_text() -> None:
    assert SETS.share(2) == (3 + 2) / (8 + 2)
    assert TokenSets(torch.arange(8), torch.arange(0)).share(2) is None


def test_a_run_that_is_remembered_gives_what_diffusers_gives(
    transformer: FluxTransformer2DModel,
) -> None:
    plain = transformer(**inputs())[0]
    with masked_token_attention(transformer, SETS, **REMEMBER) as kept:
        kept.fill(0.7)
        assert torch.equal(transformer(**inputs())[0], plain)


def test_masked_tokens_alone_get_their_answer_of_the_whole_when_nothing_has_changed(
    transformer: FluxTransformer2DModel, attention: MaskedTokenAttention
) -> None:
    attention.fill(0.7)
    whole = transformer(**inputs())[0]
    attention.reuse(0.7)
    alone = transformer(**only(SETS.masked, inputs()))[0]
    assert alone.shape == (2, 3, 64)
    torch.testing.assert_close(alone, whole[:, SETS.masked], atol=1e-5, rtol=1e-4)


def test_masked_tokens_alone_see_the_others_as_they_were(
    transformer: FluxTransformer2DModel, attention: MaskedTokenAttention
) -> None:
    attention.fill(0.7)
    transformer(**inputs(1))
    attention.reuse(0.6)
    one = transformer(**only(SETS.masked, inputs(2)))[0]
    attention.fill(0.6)
    transformer(**inputs(3))
    attention.drift = 0.0
    attention.reuse(0.6)
    assert not torch.allclose(transformer(**only(SETS.masked, inputs(2)))[0], one, atol=1e-3)


def test_kept_keys_go_on_by_a_share_of_their_last_change() -> None:
    attention = MaskedTokenAttention(torch.tensor([0]), 1, drift=0.5)
    attention.fill(0.9)
    attention.reuse(0.8)
    assert attention.ahead.item() == 0  # there is no change yet
    attention.fill(0.7)
    attention.reuse(0.6)
    assert attention.ahead.item() == pytest.approx(0.25)
    kept = CachedTensor((1, 1, 1, 4), PLAIN, CPU, torch.float32)
    kept.put(torch.full((1, 1, 1, 4), 2.0))
    kept.put(torch.full((1, 1, 1, 4), 3.0))
    assert kept.get(attention.ahead).tolist() == [[[[3.25] * 4]]]


def test_in_8_bits_a_tensor_keeps_its_value_to_a_few_percent() -> None:
    shape, generator = (2, 7, 3, 32), torch.Generator().manual_seed(0)
    kept = CachedTensor(shape, EIGHT_BITS, CPU, torch.bfloat16)
    first, second = (10 * torch.randn(shape, generator=generator).bfloat16() for _ in range(2))
    kept.put(first)
    kept.put(second)
    now = kept.get(torch.zeros(()))
    assert now.dtype is torch.bfloat16
    assert (now - second).norm() < 0.04 * second.norm()
    on = kept.get(torch.ones(())).float()
    assert (on - (2 * second - first).float()).norm() < 0.08 * on.norm()


def test_a_row_of_zeros_stays_one() -> None:
    kept = CachedTensor(
        (1, 2, 1, 8), KVCacheFormat(torch.float8_e4m3fn, change=False), CPU, torch.bfloat16
    )
    kept.put(torch.zeros(1, 2, 1, 8, dtype=torch.bfloat16))
    assert not kept.get(torch.zeros(())).any()


def test_diffusers_own_attention_is_back_after_an_interruption(
    transformer: FluxTransformer2DModel,
) -> None:
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    before = [block.attn.processor for block in blocks]
    with (
        pytest.raises(KeyboardInterrupt),
        masked_token_attention(transformer, SETS, **REMEMBER),
    ):
        assert type(blocks[0].attn.processor) is not FluxAttnProcessor
        raise KeyboardInterrupt
    assert [block.attn.processor for block in blocks] == before


def test_bytes_are_those_of_the_tensors(
    transformer: FluxTransformer2DModel, attention: MaskedTokenAttention
) -> None:
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    held = [
        data.nbytes
        for block in blocks
        for kept in (block.attn.processor._keys, block.attn.processor._values)
        for data, _ in kept._buffers.values()
    ]
    assert sum(held) == kv_cache_bytes(transformer, SETS, 2, PLAIN)
    assert EIGHT_BITS.bytes((2, 3, 4, 128)) >= 2 * 2 * 3 * 4 * (128 + 2)


def test_a_card_may_keep_keys_in_less_and_less_memory() -> None:
    assert kv_cache_formats(CPU, torch.float32) == (PLAIN,)
    ways = kv_cache_formats(torch.device("cuda"), torch.bfloat16)
    sizes = [way.bytes((2, 100, 24, 128)) for way in ways]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.27 * sizes[0]
