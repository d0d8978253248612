"""Model folders filled with tiny real models under the names that users give them."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from fakes.layouts import write_clip, write_pipeline, write_t5, write_transformer, write_vae
from fakes.layouts_gguf import write_gguf_t5, write_gguf_transformer
from fakes.layouts_lora import write_lora
from fakes.tiny_flux import tiny_flux_fill
from gguf import GGMLQuantizationType
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths
from onereward_pack.nodes.backends import find_files
from onereward_pack.nodes.contracts import LocalSpec
from safetensors.torch import load_file, save_file

Q8_0 = GGMLQuantizationType.Q8_0
FOLDERS = {
    "fill": "diffusion_models", "fill_fp8": "diffusion_models", "fill_gguf": "diffusion_models",
    "dev": "diffusion_models", "t5": "text_encoders", "t5_fp8": "text_encoders",
    "t5_gguf": "text_encoders", "clip": "text_encoders", "vae": "vae", "lora": "loras",
}  # fmt: skip


def write_shelf(folder: Path) -> dict[str, Path]:
    """Each model once, by what it is; and a whole pipeline."""
    flux = tiny_flux_fill()
    fill = write_transformer(folder, flux.transformer, "bfl", "bfloat16").path
    dev = {k: v[:, :64] if k == "img_in.weight" else v for k, v in load_file(fill).items()}
    save_file({k: v.contiguous() for k, v in dev.items()}, folder / "dev.safetensors")
    return {
        "fill": fill,
        "fill_fp8": write_transformer(folder, flux.transformer, "bfl", "fp8").path,
        "fill_gguf": write_gguf_transformer(
            folder, flux.transformer, GGMLQuantizationType.Q8_0
        ).path,
        "dev": folder / "dev.safetensors",
        "t5": write_t5(folder, flux.text_encoder_2, "float16").path,
        "t5_fp8": write_t5(folder, flux.text_encoder_2, "fp8").path,
        "t5_gguf": write_gguf_t5(folder, flux.text_encoder_2, Q8_0).path,
        "clip": write_clip(folder, flux.text_encoder).path,
        "vae": write_vae(folder, flux.vae).path,
        "lora": write_lora(folder, flux.transformer, "peft").path,
        "pipeline": write_pipeline(folder / "pipeline", flux),
    }


class Models:
    """Model folders to put files into, and the menus that offer them."""

    def __init__(self, base: Path, shelf: dict[str, Path], menus: ModuleType) -> None:
        self.base, self.menus, self._shelf = base, menus, shelf

    def put(self, **names: str) -> None:
        """A model of the shelf under a name, in the folder of its kind."""
        for what, name in names.items():
            self.put_at(what, f"{FOLDERS[what]}/{name}")

    def put_at(self, what: str, place: str) -> None:
        """A model of the shelf at a place below the model folders."""
        path = self.base / "models" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self._shelf[what], path)

    def put_parts(self) -> None:
        self.put(t5="t5xxl_fp16.safetensors", clip="clip_l.safetensors", vae="ae.safetensors")

    def put_pipeline(self, name: str, *left_out: str) -> Path:
        path = self.base / "models/diffusers" / name
        for file in self._shelf["pipeline"].rglob("*"):
            target = path / file.relative_to(self._shelf["pipeline"])
            if file.is_file() and target.parent.name not in left_out:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, target)
        return path

    def files(self, **names: str) -> dict[str, str]:
        """The files that are found, by their part and their path below the model folders."""
        found: ModelPaths = find_files(LocalSpec(**names), self.menus).files  # type: ignore[arg-type]
        parts = ("transformer", "text_encoder_2", "text_encoder", "vae", "lora")
        paths = {part: getattr(found, part) for part in parts}
        root = self.base / "models"
        return {part: path.relative_to(root).as_posix() for part, path in paths.items() if path}
