"""The DeepSpeed engine: built, stepped, read and taken apart again. Nothing else imports it.

DeepSpeed divides by the accumulation steps and averages over the ranks by itself. The first is
switched off (`scale_wrt_gas=False`), the second undone by multiplying with the world size, so
that a step's gradient is that of the loss we wrote down.
"""

import contextlib
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.cpp_extension import _get_build_directory

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DS_LOG_LEVEL", "warning")
# DeepSpeed looks for ninja on the path, where a virtual environment that nobody activated is not.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

import deepspeed
from deepspeed.comm.torch import build_shm_op
from deepspeed.runtime.zero import parameter_offload
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_grad,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

from trainers.config import DeepSpeedConfig, OptimizerConfig
from trainers.engine.deepspeed_settings import deepspeed_settings
from trainers.engine.ranks import Ranks

# DeepSpeed 0.19 calls names that torch 2.13 has renamed, and under ZeRO 3 each step would say so.
warnings.filterwarnings("ignore", message=r"`torch\.distributed\.", category=FutureWarning)

# Compiling takes about a minute; a lock this old belongs to a process that was killed.
CACHED_ELEMENTS = 2**16
STALE_LOCK_S = 180
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroEngine:
    """One DeepSpeed engine for one fine-tune, with the few operations that training needs."""

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerConfig,
        deepspeed_config: DeepSpeedConfig,
        ranks: Ranks,
        micro_batch_size: int,
    ) -> None:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # DeepSpeed insists on it even where the group is already there.
        os.environ.setdefault("LOCAL_RANK", str(ranks.device.index or 0))
        _await_build_lock()
        deepspeed.init_distributed(
            dist_backend="nccl" if ranks.device.type == "cuda" else "gloo",
            auto_mpi_discovery=False,
            verbose=False,
        )
        self.ranks = ranks
        # Without ZeRO, and so in float32, DeepSpeed steps torch's own optimizer and wraps nothing.
        self._is_plain = deepspeed_config.zero_stage == 0
        self._max_grad_norm = optimizer.max_grad_norm
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adam = torch.optim.AdamW(
            trainable,
            lr=optimizer.learning_rate,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            # One pass and no temporaries: 0.3 s instead of 0.7 s a step for 135M parameters on
            # one core.
            fused=True,
        )
        self._engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=adam,
            config=deepspeed_settings(
                # Without ZeRO, `step` clips: it has the norm at hand.
                0.0 if self._is_plain else optimizer.max_grad_norm,
                deepspeed_config,
                ranks.world_size,
                micro_batch_size,
            ),
            dist_init_required=False,
        )
        self._parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self._engine.module
        return module

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained, over all ranks."""
        return sum(getattr(p, "ds_numel", p.numel()) for p in self._parameters.values())

    def forward(self, *inputs: Tensor, **settings: Any) -> Any:
        return self._engine(*inputs, **settings)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Forward passes without dropout or gradient, after which training goes on as before.

        To be entered between steps, by all ranks.
        """
        self._engine.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._engine.train()
            # ZeRO 3 has fetched ahead for a backward pass that never comes.
            release = getattr(self._engine.optimizer, "empty_partition_cache", None)
            if release is not None:
                release()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the gradient of `loss` to the step's; after the last one it is summed over ranks.

        The step's loss is the plain sum of all that `backward` was given on all ranks.
        """
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss * self.ranks.world_size, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Move the parameters; returns the global gradient norm before clipping.

        A norm that is not finite is returned too, on all ranks, and then nothing has moved.
        """
        for group in self._inner_optimizer.param_groups:
            group["lr"] = learning_rate
        if self._is_plain:
            parameters = list(self._parameters.values())
            norm = torch.nn.utils.get_total_norm(
                [grad for parameter in parameters if (grad := parameter.grad) is not None]
            )
            if torch.isfinite(norm):
                if self._max_grad_norm > 0:
                    torch.nn.utils.clip_grads_with_norm_(parameters, self._max_grad_norm, norm)
                self._engine.step()
            return float(norm)
        self._engine.step()
        # DeepSpeed's ZeRO optimizers pass over a step whose gradient is not finite.
        if self._engine.optimizer.overflow:
            return math.inf
        return float(self._engine.get_global_grad_norm())

    def gradients(self) -> dict[str, Tensor]:
        """The full gradient of the step by parameter, float32, before clipping and stepping.

        To be called between the last `backward` and `step`, by all ranks.
        """
        return {
            name: safe_get_full_grad(parameter).detach().clone()
            for name, parameter in self._parameters.items()
        }

    def weights_and_moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """By parameter: the float32 weight and AdamW's two moments, whole, in any ZeRO stage.

        A collective: all ranks iterate together. Tensors are transient, so copy what is kept.
        """
        for name, parameter in self._parameters.items():
            if self._is_plain:
                state = self._inner_optimizer.state[parameter]
                yield (
                    name,
                    {
                        "weight": parameter.data,
                        **{moment: state[moment] for moment in ADAM_MOMENTS},
                    },
                )
            else:
                yield (
                    name,
                    {
                        "weight": safe_get_full_fp32_param(parameter),
                        **{
                            moment: safe_get_full_optimizer_state(parameter, moment)
                            for moment in ADAM_MOMENTS
                        },
                    },
                )

    def restore(self, name: str, saved: dict[str, Tensor]) -> None:
        """Set one parameter's float32 weight and moments, after `start_moments`.

        The model must have been built with the same weights: this sets the float32 master copy,
        not the working copy in bfloat16.
        """
        parameter = self._parameters[name]
        device = self.ranks.device
        if self._is_plain:
            parameter.data.copy_(saved["weight"])
            for moment in ADAM_MOMENTS:
                self._inner_optimizer.state[parameter][moment].copy_(saved[moment])
            return
        safe_set_full_fp32_param(parameter, self._padded(parameter, saved["weight"].to(device)))
        for moment in ADAM_MOMENTS:
            value = self._padded(parameter, saved[moment].to(device))
            safe_set_full_optimizer_state(parameter, value, moment)

    def start_moments(self, steps_done: int) -> None:
        """Make empty AdamW moments that have seen `steps_done` steps, to be filled by `restore`."""
        for flat in self._flat_partitions():
            self._inner_optimizer.state[flat] = {
                "step": torch.tensor(float(steps_done)),
                **{moment: torch.zeros_like(flat.data) for moment in ADAM_MOMENTS},
            }
        link = getattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if link is not None:
            link()

    @torch.no_grad()
    def squared_distances(self, origin: Mapping[str, Tensor]) -> dict[str, float]:
        """By parameter: the squared L2 distance of its float32 weight from `origin`'s, in all.

        A collective; reads only what each rank holds.
        """
        names = list(self._parameters)
        sums = torch.zeros(len(names), dtype=torch.float64)
        for index, name in enumerate(names):
            fragment, start = self._local_weight(name)
            if fragment is None or (self._is_plain and not self.ranks.is_first):
                continue
            sums[index] = _squared_distance(fragment, _slice_of(origin[name], start, fragment))
        return dict(zip(names, self.ranks.sum(sums.tolist()), strict=True))

    @torch.no_grad()
    def pull_towards(self, origin: Mapping[str, Tensor], share: float) -> None:
        """Move every float32 weight by `share` of its way to `origin`'s, before `step`."""
        for name in self._parameters:
            fragment, start = self._local_weight(name)
            if fragment is not None:
                fragment.lerp_(_slice_of(origin[name], start, fragment), share)

    def _local_weight(self, name: str) -> tuple[Tensor | None, int]:
        """This rank's part of a float32 weight, flat, and where in the weight it starts."""
        parameter: Any = self._parameters[name]
        if self._is_plain:
            return parameter.data.view(-1), 0
        if hasattr(parameter, "ds_id"):
            fragment, _ = parameter._z3_optimizer._get_fp32_opt_state_partition(
                parameter, release_swap_buffers=False
            )
            return fragment, self.ranks.rank * parameter.ds_tensor.ds_numel
        mapping = parameter._hp_mapping
        if mapping is None:
            return None, 0
        return mapping.hp_fragment, mapping.lp_fragment_address.start

    def full_state_dict(self) -> dict[str, Tensor]:
        """The wrapped model's weights on the CPU of the first rank, whole; empty on the others.

        A tied weight is there once, and a buffer only if it is part of the model's state.
        """
        weights: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            gather = (
                deepspeed.zero.GatheredParameters([parameter])
                if hasattr(parameter, "ds_id")
                else contextlib.nullcontext()
            )
            with gather:
                if self.ranks.is_first:
                    weights[name] = parameter.detach().to("cpu", copy=True)
        if self.ranks.is_first:
            kept = self.module.state_dict().keys()
            weights.update(
                {
                    name: buffer.detach().to("cpu", copy=True)
                    for name, buffer in self.module.named_buffers()
                    if name in kept
                }
            )
        return weights

    def destroy(self) -> None:
        """Let go of hooks, buffers and parameters, so that another engine can follow."""
        optimizer = self._engine.optimizer
        self._engine.destroy()
        # ZeRO 3 stays alive behind its hooks on the autograd graph, out of reach of the garbage
        # collector, so its memory is given back whoever still refers to it.
        parameter_offload.FWD_MODULE_STACK.clear()
        held = [vars(optimizer), self._inner_optimizer.state, list(self.module.parameters())]
        for tensor in _tensors_in(held):
            storage = tensor.untyped_storage()
            if storage.resizable():
                storage.resize_(0)
        del self._engine, self._parameters

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        outer = self._engine.optimizer
        inner: torch.optim.Optimizer = getattr(outer, "optimizer", outer)
        return inner

    def _flat_partitions(self) -> list[Tensor]:
        outer = self._engine.optimizer
        for attribute in (
            "fp32_partitioned_groups_flat",  # stage 3
            "single_partition_of_fp32_groups",  # stages 1 and 2
        ):
            if hasattr(outer, attribute):
                partitions: list[Tensor] = list(getattr(outer, attribute))
                return partitions
        return [p for group in self._inner_optimizer.param_groups for p in group["params"]]

    def _padded(self, parameter: nn.Parameter, value: Tensor) -> Any:
        """Stage 3 slices a flat value by equal partitions, whose last one may be padding."""
        partition = getattr(parameter, "ds_tensor", None)
        if partition is None:
            return value
        missing = partition.ds_numel * self.ranks.world_size - value.numel()
        if missing <= 0:
            return value
        # The setter checks the element count first, so the padding must hide from it.
        return _PaddedValue(value, missing)


class _PaddedValue:
    """A value that reports its own size but flattens with zeros behind it."""

    def __init__(self, value: Tensor, missing: int) -> None:
        self._value, self._missing = value, missing

    def numel(self) -> int:
        return self._value.numel()

    def flatten(self) -> Tensor:
        return nn.functional.pad(self._value.flatten(), (0, self._missing))


def _slice_of(weight: Tensor, start: int, like: Tensor) -> Tensor:
    """The elements of `weight` that `like` holds, zeros where that is padding."""
    part = weight.flatten()[start : start + like.numel()].to(like)
    return nn.functional.pad(part, (0, like.numel() - part.numel()))


def _squared_distance(one: Tensor, other: Tensor) -> float:
    """Of two flat float32 tensors. On a CPU by pieces that stay in its cache: a quarter of the
    time."""
    if one.device.type != "cpu":
        return float((one - other).square().sum(dtype=torch.float64))
    pieces = (torch.split(tensor, CACHED_ELEMENTS) for tensor in (one, other))
    pairs = zip(*pieces, strict=True)
    differences = (a - b for a, b in pairs)
    return sum(float(torch.dot(difference, difference)) for difference in differences)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors inside nested lists, tuples and dicts; a parameter with its ZeRO 3 partition."""
    if isinstance(value, Tensor):
        yield value
        yield from _tensors_in([value.grad, getattr(value, "ds_tensor", None)])
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)


def load_cpu_op() -> bool:
    """Compile or load DeepSpeed's CPU operation; False where the device needs none."""
    if torch.cuda.is_available():
        return False
    _await_build_lock()
    return build_shm_op() is not None


def _await_build_lock() -> None:
    """Wait while another process builds the CPU operation, and clear the lock of a dead one.

    torch waits for such a lock without end, so a kill at the wrong moment would hang every later
    run on the machine.
    """
    lock = Path(_get_build_directory("deepspeed_shm_comm", verbose=False)) / "lock"
    with contextlib.suppress(FileNotFoundError):
        while time.time() - lock.stat().st_mtime < STALE_LOCK_S:
            time.sleep(0.2)
        lock.unlink()
