"""Count the parameters that LoRA trains, from the headers of a model's safetensors files."""

from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trainers.config import LoraConfig

# Components of the names of embeddings and of the head, which "all linear layers" does not include.
_NOT_ADAPTED = {"lm_head", "embed_out", "wte", "wpe"}
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in")


def count_trained(path: str, lora: LoraConfig) -> int | None:
    """Return the number of elements of LoRA factors and of the modules that are trained themselves.

    An estimate from names and shapes: layers that transformers fuses or splits count as they are in
    the files. None if `path` is not a folder, or a file cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    shapes: dict[str, list[int]] = {}
    try:
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118
                    shapes[key] = tensors.get_slice(key).get_shape()
    except SafetensorError:
        return None
    saved = set(lora.modules_to_save)
    found = {part for key in shapes for part in key.split(".")}
    if "lm_head" in saved - found:  # tied to the embeddings
        saved |= set(_EMBEDDINGS)
    return sum(_num_trained(key, shape, lora, saved) for key, shape in shapes.items())


def _num_trained(key: str, shape: list[int], lora: LoraConfig, saved: set[str]) -> int:
    *module, kind = key.split(".")
    if not saved.isdisjoint(module):
        return prod(shape)
    if kind != "weight" or len(shape) != 2 or not module:
        return 0
    if lora.target_modules is None:
        is_adapted = not any("embed" in part or part in _NOT_ADAPTED for part in module)
    else:
        is_adapted = module[-1] in lora.target_modules
    return lora.rank * sum(shape) if is_adapted else 0
