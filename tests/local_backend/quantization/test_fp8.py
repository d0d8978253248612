"""Products of 8-bit floats: how exact they are, what is computed once, and what is put back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.backend import Interrupted
from fakes.layouts import write_transformer
from fakes.layouts_gguf import write_gguf_transformer
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from gguf import GGMLQuantizationType
from onereward_pack.local_backend.checkpoints.load import open_transformer
from onereward_pack.local_backend.checkpoints.lora import Lora
from onereward_pack.local_backend.offload.model_part import ModelPart
from onereward_pack.local_backend.offload.residency import Residency
from onereward_pack.local_backend.quantization import fp8
from onereward_pack.local_backend.quantization.fp8 import to_fp8
from onereward_pack.local_backend.quantization.linear import LowRank, StoredLinear
from torch import Tensor
from torch.nn import functional

CPU = torch.device("cpu")
ALL = frozenset(range(4))
FP8, STREAMED = Residency(fp8=True), Residency(fp8=True, streamed=ALL)
COLUMNS = 3072  # of FLUX's layers
ATTENTION = "transformer_blocks.0.attn"


def values_of(kind: str, dtype: torch.dtype) -> Tensor:
    """[64, COLUMNS] such as activations are."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(64, COLUMNS, generator=generator)
    if kind == "outlier tokens":
        values[::7] *= 100
    if kind == "heavy tails":
        values = values / torch.rand(64, COLUMNS, generator=generator).clamp(min=0.02)
    return values.to(dtype)


@pytest.fixture(scope="module")
def weight() -> Tensor:
    return torch.randn(768, COLUMNS, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gaussian", "outlier tokens", "heavy tails"])
def test_a_product_comes_within_four_percent(kind: str, dtype: torch.dtype, weight: Tensor) -> None:
    values, stored = values_of(kind, dtype), to_fp8(weight)
    exact = functional.linear(values.float(), weight)
    off = fp8.matmul(values, stored.data, stored.scale, None).float() - exact
    errors = off.norm(dim=1) / exact.norm(dim=1)
    assert errors.mean() <= 0.04
    assert errors.max() <= 0.045
    assert errors.mean() > 0.02  # it is computed in 8 bits


@pytest.mark.parametrize("kind", ["none", "one", "rows"])
def test_a_product_is_that_of_what_was_rounded(kind: str, weight: Tensor) -> None:
    stored = to_fp8(weight)
    scale = {"none": None, "one": torch.tensor(0.25), "rows": stored.scale}[kind]
    values, bias = values_of("gaussian", torch.float32).view(4, 16, COLUMNS), torch.randn(768)
    data, scales = fp8.quantise_rows(values.view(64, COLUMNS))
    factor = 1.0 if scale is None else scale
    expected = functional.linear(data.float() * scales, stored.data.float() * factor, bias)
    product = fp8.matmul(values, stored.data, scale, bias)
    assert relative_rms(product, expected.view(4, 16, 768)) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_largest_value_is_rounded_beyond_what_eight_bits_hold(dtype: torch.dtype) -> None:
    largest = 1 + torch.arange(256) / 256  # each of bf16's mantissas, and those between
    powers = torch.tensor([2.0**-100, 1.0, 2.0**100])
    values = (largest[:, None] * powers).flatten()[:, None] * torch.tensor([1.0, -0.5, 0.25])
    data, scale = fp8.quantise_rows(values.to(dtype))
    back = data.float() * scale
    assert back.isfinite().all()
    expected = values.to(dtype).float()
    torch.testing.assert_close(back, expected, rtol=0.0625, atol=0)  # half of a last bit
    torch.testing.assert_close(back[:, 0], expected[:, 0], rtol=0.01, atol=0)  # 448 itself


def test_rows_without_anything_stay_zero() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        data, scale = fp8.quantise_rows(torch.zeros(2, 16, dtype=dtype))
        assert torch.equal(data.float() * scale, torch.zeros(2, 16))


def test_what_is_not_a_number_stays_to_be_seen() -> None:
    values = torch.ones(2, 16)
    values[1, 3] = torch.nan
    data, _ = fp8.quantise_rows(values)
    assert data[0].float().isfinite().all()
    assert data[1].float().isnan().any()


def test_a_processor_multiplies_no_8_bit_floats() -> None:
    assert not fp8.can_multiply(CPU)


def test_one_tensor_is_quantised_once_and_another_one_anew() -> None:
    once, first = fp8.QuantisedOnce(), torch.randn(1, 4, 16)
    rows = once.rows(first)
    assert once.rows(first) is rows
    assert once.rows(first.clone()) is not rows
    again = once.rows(first)
    assert again is not rows
    assert torch.equal(again[1], rows[1])


def test_the_compiler_sees_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    once, values = fp8.QuantisedOnce(), torch.randn(1, 4, 16)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert once.rows(values) is not once.rows(values)


# A part whose layers multiply


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, flux: TinyFlux) -> Path:
    folder = tmp_path_factory.mktemp("fp8")
    return write_transformer(folder, flux.transformer, "bfl", "float32").path


def make_part(path: Path, residency: Residency = FP8, multiply: bool = True) -> ModelPart:
    blocks = ("transformer_blocks", "single_transformer_blocks")
    part = ModelPart(open_transformer(path), torch.float32, block_lists=blocks)
    part.weights.fp8_products = multiply
    part.load(CPU, residency)
    return part


def run(module: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(16, 3)
    ids[:, 1] = torch.arange(16)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        return module(
            hidden_states=noise(2, 16, 384),
            encoder_hidden_states=noise(2, 8, 64),
            pooled_projections=noise(2, 64),
            timestep=torch.tensor([0.7, 0.7]),
            guidance=torch.ones(2),
            img_ids=ids,
            txt_ids=torch.zeros(8, 3),
            return_dict=False,
        )[0]


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def fused(part: ModelPart) -> list[str]:
    return [name for name, _ in part.module.named_modules() if name.endswith("qkv")]


def lora_on(layer: str) -> Lora:
    generator = torch.Generator().manual_seed(3)
    factors = [torch.randn(shape, generator=generator) / 4 for shape in ((4, 64), (64, 4))]
    return Lora({layer: LowRank(*factors)}, ())


def test_a_part_multiplies_in_8_bits_and_stays_close(path: Path, flux: TinyFlux) -> None:
    plain, exact = run(make_part(path, multiply=False).module), run(flux.transformer)
    part = make_part(path)
    answer = run(part.module)
    assert not torch.equal(answer, plain)
    assert relative_rms(answer, exact) <= 0.06
    outside = [m for n, m in part.module.named_modules() if "blocks" not in n]
    assert not any(getattr(module, "quantised", None) for module in outside)


def test_query_key_and_value_are_one_product_with_the_same_result(path: Path) -> None:
    part = make_part(path)
    assert len(fused(part)) == 2 * 2 + 2  # picture and text of two double blocks; two single ones
    together = run(part.module)
    for attention in part._fused:
        attention.undo()
    assert fused(part) == []
    torch.testing.assert_close(run(part.module), together, rtol=1e-4, atol=1e-5)


def test_fused_weights_are_held_once(path: Path) -> None:
    part = make_part(path)
    blocks = [*part.module.transformer_blocks, *part.module.single_transformer_blocks]
    layers = [m for b in blocks for m in b.modules() if isinstance(m, StoredLinear)]
    held = [tensor for layer in layers for tensor in (layer.data, layer.scale)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    shapes = [m.shape for n, m in part.module.named_modules() if "qkv" not in n and m in layers]
    assert sum(storages.values()) == sum(rows * columns + 4 * rows for rows, columns in shapes)
    assert part.device_bytes == part.required_bytes(FP8)


def test_streamed_blocks_multiply_in_8_bits_too(path: Path) -> None:
    part = make_part(path, STREAMED)
    assert fused(part) == []
    torch.testing.assert_close(run(part.module), run(make_part(path).module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("residency", [FP8, STREAMED])
def test_unloading_puts_everything_back(path: Path, residency: Residency) -> None:
    part = make_part(path, residency)
    run(part.module)
    part.unload()
    part.weights.fp8_products = False
    assert fused(part) == []
    for module in part.module.modules():
        assert not getattr(module, "fused_projections", False)
        if isinstance(module, StoredLinear):
            assert module.quantised is module.data is module.scale is module.bias is None
    part.load(CPU, residency)
    assert torch.equal(run(part.module), run(make_part(path, residency, multiply=False).module))


def test_what_was_quantised_is_gone_after_the_step(path: Path) -> None:
    part = make_part(path)
    run(part.module)
    assert part.weights.fp8_inputs._values is part.weights.fp8_inputs._rows is None
    blocks = part.module.single_transformer_blocks
    blocks[1].register_forward_pre_hook(stop)
    with pytest.raises(Interrupted):
        run(part.module)
    assert part.weights.fp8_inputs._values is part.weights.fp8_inputs._rows is None


def stop(*_: object) -> None:
    raise Interrupted


def test_a_lora_s_attention_is_not_fused_as_long_as_it_is_on(path: Path) -> None:
    part = make_part(path)
    before, names = run(part.module), fused(part)
    part.set_lora(lora_on(f"{ATTENTION}.to_q"))
    assert fused(part) == [name for name in names if not name.startswith(ATTENTION)]
    other = make_part(path, multiply=False)
    other.set_lora(lora_on(f"{ATTENTION}.to_q"))
    changed = run(part.module)
    assert relative_rms(changed, before) > 0.01
    assert relative_rms(changed, run(other.module)) <= 0.06
    part.set_lora(None)
    assert fused(part) == names
    assert torch.equal(run(part.module), before)


def test_a_lora_that_is_there_before_the_part_is_loaded_counts(path: Path) -> None:
    part = make_part(path)
    part.unload()
    part.set_lora(lora_on(f"{ATTENTION}.add_k_proj"))
    part.load(CPU, FP8)
    assert not any(name.startswith(ATTENTION) for name in fused(part))


@pytest.mark.parametrize("precision", ["fp8", "fp8_scaled", "fp8_rows", "fp8_comfy"])
def test_files_in_8_bits_are_multiplied_as_they_are(
    tmp_path: Path, flux: TinyFlux, precision: str
) -> None:
    file = write_transformer(tmp_path, flux.transformer, "bfl", precision).path
    part, plain = make_part(file, Residency()), make_part(file, Residency(), multiply=False)
    assert part.weights.count_fp8_products()[0] > 0
    assert part.module.transformer_blocks[0].attn.to_q.data.dtype == torch.float8_e4m3fn
    difference = relative_rms(run(part.module), run(plain.module))
    assert 0 < difference <= 0.05


def test_other_quantised_files_are_unpacked_as_before(tmp_path: Path, flux: TinyFlux) -> None:
    int8 = write_transformer(tmp_path, flux.transformer, "bfl", "int8").path
    packed = write_gguf_transformer(tmp_path, flux.transformer, GGMLQuantizationType.Q8_0).path
    for file in (int8, packed):
        part, plain = make_part(file, Residency()), make_part(file, Residency(), multiply=False)
        able, layers = part.weights.count_fp8_products()
        assert (able, layers > 0) == (0, True)
        assert torch.equal(run(part.module), run(plain.module))
