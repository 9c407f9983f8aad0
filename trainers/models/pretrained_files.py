"""Read slices of a model's weights from its safetensors files, without loading the model."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainers.config import ModelConfig
from trainers.models.loading import resolve_model_path

# Elements that `matches` compares. Transposed or permuted weights differ within them.
_NUM_COMPARED = 4096


class PretrainedFiles:
    """The weights in a model's safetensors files, by the model's parameter names."""

    def __init__(self, folder: Path, base_prefix: str) -> None:
        """
        Args:
            base_prefix: of the decoder's parameters, which some files leave out.

        Raises:
            SafetensorError: a file cannot be read.
        """
        self._prefix = f"{base_prefix}."
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file: Any = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(file.keys(), file)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a weight; None if the files have no weight of this name."""
        key = self._key(name)
        return None if key is None else tuple(self._files[key].get_slice(key).get_shape())

    def read(self, name: str, start: int, size: int) -> Tensor:
        """Return up to `size` elements of the flattened weight from `start`, in the file's dtype.

        Only the rows that contain them are read.
        """
        key = self._key(name)
        assert key is not None
        rows = self._files[key].get_slice(key)
        shape = rows.get_shape()
        if not shape:
            whole: Tensor = self._files[key].get_tensor(key)
            return whole.reshape(1)[start : start + size]
        row_size = prod(shape[1:])
        first, end = start // row_size, -(-(start + size) // row_size)
        part: Tensor = rows[min(first, shape[0]) : min(end, shape[0])]
        return part.flatten()[start - first * row_size :][:size]

    def matches(self, name: str, shape: tuple[int, ...], values: Tensor, start: int) -> bool:
        """Return whether a weight has this shape, and these flat values from `start`.

        transformers renames, fuses or transposes the weights of some families when it loads them.
        """
        if self.shape(name) != shape:
            return False
        values = values.detach()[:_NUM_COMPARED].cpu()
        own = self.read(name, start, len(values)).to(values.dtype)
        return bool((own == values[: len(own)]).all())  # The rest is padding.

    def _key(self, name: str) -> str | None:
        for key in (name, name.removeprefix(self._prefix), f"{self._prefix}{name}"):
            if key in self._files:
                return key
        return None


def open_pretrained_files(
    config: ModelConfig, base_prefix: str, parameters: Mapping[str, Tensor], rank: int
) -> PretrainedFiles | None:
    """Return the files of a model that was just loaded; None if they have other weights.

    Args:
        parameters: the weights that will be read, by name; each may be partitioned over the ranks.
    """
    path = resolve_model_path(config.path)
    try:
        if not Path(path).is_dir():
            path = snapshot_download(path, revision=config.revision, local_files_only=True)
        files = PretrainedFiles(Path(path), base_prefix)
    except (OSError, ValueError, SafetensorError):
        return None
    is_same = all(
        files.matches(name, *_local_values(parameter, rank))
        for name, parameter in parameters.items()
    )
    return files if is_same else None


def _local_values(parameter: Any, rank: int) -> tuple[tuple[int, ...], Tensor, int]:
    """Return the whole shape, this rank's flat values, and where they start in the weight."""
    if not hasattr(parameter, "ds_tensor"):
        return tuple(parameter.shape), parameter.flatten(), 0
    partition = parameter.ds_tensor.flatten()
    start = parameter.ds_tensor.ds_numel * rank
    return tuple(parameter.ds_shape), partition[: max(0, parameter.ds_numel - start)], start
