"""A DeepSpeed engine with the operations that training needs; only this module imports deepspeed.

DeepSpeed divides the loss by the accumulation steps and averages gradients over ranks. The division
is disabled (`scale_wrt_gas=False`). The averaging is undone: the loss is multiplied by the world
size. So a step's gradient is the gradient of our loss.
"""

import contextlib
import hashlib
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils.cpp_extension import _get_build_directory, get_default_build_root

from trainers.engine.ranks import Ranks, uses_cuda

if not uses_cuda():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DS_LOG_LEVEL", "warning")
# DeepSpeed looks for ninja on the PATH. Without activation, a virtual environment is not on the
# PATH.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

import deepspeed
from deepspeed.comm.torch import build_shm_op
from deepspeed.runtime.config import DeepSpeedConfigError, DtypeEnum
from deepspeed.runtime.zero import parameter_offload
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_grad,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)

from trainers.config import OptimizerConfig
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.engine.deepspeed_settings import (
    ReadKeys,
    deepspeed_settings,
    override_problems,
    unknown_key_problems,
)
from trainers.engine.flat_tensors import padded_slice, tensors_in
from trainers.engine.optimizer import ADAM_MOMENTS, make_adamw
from trainers.engine.weight_decay import is_left_out
from trainers.foundation.errors import InputError

# DeepSpeed 0.19 uses names that torch 2.13 renamed; every step would warn under ZeRO 3.
warnings.filterwarnings("ignore", message=r"`torch\.distributed\.", category=FutureWarning)
_LINEAR = nn.functional.linear
# What DeepSpeed raises for a bad config.
_CONFIG_ERRORS = (DeepSpeedConfigError, ValueError, TypeError, AttributeError, AssertionError)


class ZeroEngine:
    """The DeepSpeed engine of one fine-tune."""

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerConfig,
        deepspeed_config: DeepSpeedConfig,
        ranks: Ranks,
        micro_batch_size: int,
    ) -> None:
        init_deepspeed(ranks)
        self.ranks = ranks
        # At stage 0 (float32 only), DeepSpeed steps torch's optimizer without a wrapper, and each
        # rank has all weights.
        self.is_replicated = deepspeed_config.zero_stage == 0
        self._max_grad_norm = optimizer.max_grad_norm
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        decayed = [name for name, p in trainable.items() if not is_left_out(name, p)]
        decays_all = optimizer.decay_norms_and_biases or len(decayed) == len(trainable)
        self._weight_decay = 0.0 if decays_all else optimizer.weight_decay
        self._decayed = decayed if self._weight_decay > 0 else []
        # `step` decays some of the weights: a second group of parameters would lose its moments in
        # DeepSpeed 0.19 at stages 1 and 2, which links them after the first group's step.
        adam = make_adamw(
            list(trainable.values()), optimizer, optimizer.weight_decay if decays_all else 0.0
        )
        # Names of the moments that checkpoints store for each parameter.
        self.moments = ADAM_MOMENTS if optimizer.state_bits == 32 else ()
        engine_settings = deepspeed_settings(
            # At stage 0, `step` clips the gradient, because it computes the norm.
            0.0 if self.is_replicated else optimizer.max_grad_norm,
            deepspeed_config,
            ranks.world_size,
            micro_batch_size,
        )
        if deepspeed_config.override:
            _check_override(engine_settings)
        # DeepSpeed prints the memory use of its optimizer for bfloat16 at stage 1.
        with contextlib.redirect_stdout(sys.stderr):
            self._engine, *_ = deepspeed.initialize(
                model=model, optimizer=adam, config=engine_settings, dist_init_required=False
            )
        # The trained parameters by name.
        self.parameters: Mapping[str, nn.Parameter] = trainable

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self._engine.module
        return module

    @property
    def num_parameters(self) -> int:
        """Return the number of trained parameters, over all ranks."""
        return sum(getattr(p, "ds_numel", p.numel()) for p in self.parameters.values())

    def forward(self, *inputs: Tensor, **settings: Any) -> Any:
        return self._engine(*inputs, **settings)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run forward passes without dropout or gradient, then return to training mode.

        Collective: all ranks must enter it together, between steps.
        """
        self._engine.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._engine.train()
            # ZeRO 3 has prefetched parameters for a backward pass that will not follow.
            release = getattr(self._engine.optimizer, "empty_partition_cache", None)
            if release is not None:
                release()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the gradient of `loss` to the step's gradient; sum it over ranks if `is_last`.

        The step's loss is the sum over all losses passed to `backward` on all ranks.
        """
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss * self.ranks.world_size, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Update the parameters and return the global gradient norm before clipping.

        A norm that is not finite is returned on all ranks, and no parameter is changed.
        """
        for group in self._inner_optimizer.param_groups:
            group["lr"] = learning_rate
        if self.is_replicated:
            parameters = list(self.parameters.values())
            norm = torch.nn.utils.get_total_norm(
                [grad for parameter in parameters if (grad := parameter.grad) is not None]
            )
            if torch.isfinite(norm):
                if self._max_grad_norm > 0:
                    torch.nn.utils.clip_grads_with_norm_(parameters, self._max_grad_norm, norm)
                self._decay_weights(learning_rate)
                self._engine.step()
            return float(norm)
        self._decay_weights(learning_rate)
        self._engine.step()
        # DeepSpeed's ZeRO optimizers skip a step whose gradient is not finite.
        if self._engine.optimizer.overflow:
            return math.inf
        return float(self._engine.get_global_grad_norm())

    @torch.no_grad()
    def _decay_weights(self, learning_rate: float) -> None:
        """Decay the weights that AdamW does not, as it does at the start of its step."""
        for name in self._decayed:
            fragment, _ = self.local_weight(name)
            if fragment is not None:
                fragment.mul_(1 - learning_rate * self._weight_decay)

    def gradients(self) -> dict[str, Tensor]:
        """Return the full float32 gradient of each parameter, before clipping.

        Collective: all ranks must call it together, between the last `backward` and `step`.
        """
        return {
            name: safe_get_full_grad(parameter).detach().clone()
            for name, parameter in self.parameters.items()
        }

    def weights_and_moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield each parameter's full float32 weight and AdamW moments, at any ZeRO stage.

        Collective: all ranks iterate together. The tensors are temporary; copy them to keep them.
        """
        for name, parameter in self.parameters.items():
            if self.is_replicated:
                state = self._inner_optimizer.state[parameter]
                yield (
                    name,
                    {
                        "weight": parameter.data,
                        **{moment: state[moment] for moment in self.moments},
                    },
                )
            else:
                yield (
                    name,
                    {
                        "weight": safe_get_full_fp32_param(parameter),
                        **{
                            moment: safe_get_full_optimizer_state(parameter, moment)
                            for moment in self.moments
                        },
                    },
                )

    def restore(self, name: str, saved: dict[str, Tensor]) -> None:
        """Set one parameter's float32 weight and moments, after `init_optimizer_state`.

        The model must have been built with the same weights, because this method sets the float32
        master copy but not the bfloat16 copy.
        """
        parameter: Any = self.parameters[name]
        if self.is_replicated:
            parameter.data.copy_(saved["weight"])
            for moment in self.moments:
                self._inner_optimizer.state[parameter][moment].copy_(saved[moment])
            return
        values = {kind: value.to(self.ranks.device) for kind, value in saved.items()}
        if hasattr(parameter, "ds_id"):
            # safe_set_full_fp32_param cannot set a last partition that ends in padding.
            size = parameter.ds_tensor.ds_numel
            start = self.ranks.rank * size
            safe_set_local_fp32_param(parameter, padded_slice(values["weight"], start, size))
            for moment in self.moments:
                partition = padded_slice(values[moment], start, size)
                safe_set_local_optimizer_state(parameter, partition, moment)
            return
        safe_set_full_fp32_param(parameter, values["weight"])
        for moment in self.moments:
            safe_set_full_optimizer_state(parameter, values[moment], moment)

    def partition_states(self) -> dict[str, Tensor]:
        """Return the optimizer's states of this rank's partitions, if they are not in `moments`.

        These are 8-bit moments with the scales of their blocks, which cross parameters.
        """
        if self.moments:
            return {}
        return {
            f"{index}/{name}": torch.as_tensor(value)
            for index, flat in enumerate(self._flat_partitions())
            for name, value in self._inner_optimizer.state[flat].items()
        }

    def restore_partition_states(self, saved: Mapping[str, Tensor]) -> None:
        """Set the states that `partition_states` returned; the number of ranks is the same."""
        partitions = self._flat_partitions()
        for name, value in saved.items():
            index, _, key = name.partition("/")
            flat = partitions[int(index)]
            # bitsandbytes counts steps in an int.
            state = int(value) if key == "step" else value.to(flat.device)
            self._inner_optimizer.state[flat][key] = state

    def init_optimizer_state(self, steps_done: int) -> None:
        """Create zero AdamW moments after `steps_done` steps; `restore` sets their values."""
        for flat in self._flat_partitions():
            self._inner_optimizer.state[flat] = {
                # torch's fused AdamW requires all states on the parameter's device.
                "step": torch.tensor(float(steps_done), device=flat.device),
                **{moment: torch.zeros_like(flat.data) for moment in ADAM_MOMENTS},
            }
        link = getattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if link is not None:
            link()

    def local_weight(self, name: str) -> tuple[Tensor | None, int]:
        """Return this rank's flat partition of a float32 weight, and its start in the weight."""
        parameter: Any = self.parameters[name]
        if self.is_replicated:
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
        """Return the full weights of the wrapped model on the main rank's CPU; {} on other ranks.

        A tied weight is included once. A buffer is included only if it is in the model's state
        dict.
        """
        weights: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            with gathered(parameter):
                if self.ranks.is_main:
                    weights[name] = parameter.detach().to("cpu", copy=True)
        if self.ranks.is_main:
            persistent = self.module.state_dict().keys()
            weights.update(
                {
                    name: buffer.detach().to("cpu", copy=True)
                    for name, buffer in self.module.named_buffers()
                    if name in persistent
                }
            )
        return weights

    def destroy(self) -> None:
        """Free hooks, buffers and parameters, so that the process can build another engine."""
        optimizer = self._engine.optimizer
        self._engine.destroy()
        # DeepSpeed does it again when the garbage collector finds the engine. While torch.compile
        # traces, that is a segmentation fault, because the storages are freed below.
        self._engine.destroy = lambda: None
        # Hooks on the autograd graph keep ZeRO 3 alive, and the garbage collector cannot free it.
        # So the storages are freed although references remain.
        parameter_offload.FWD_MODULE_STACK.clear()
        # ZeRO 3 replaces it, with other rounding, for everything that the process computes later.
        nn.functional.linear = _LINEAR
        owners = [vars(optimizer), self._inner_optimizer.state, list(self.module.parameters())]
        for tensor in tensors_in(owners):
            storage = tensor.untyped_storage()
            if storage.resizable():
                storage.resize_(0)
        del self._engine, self.parameters
        if self.ranks.device.type == "cuda":
            # Another process, such as a scorer, may use the same GPU.
            torch.cuda.empty_cache()

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
            "fp32_groups_flat_partition",  # stage 1 in bfloat16
        ):
            if hasattr(outer, attribute):
                partitions: list[Tensor] = list(getattr(outer, attribute))
                return partitions
        return [p for group in self._inner_optimizer.param_groups for p in group["params"]]


def init_deepspeed(ranks: Ranks) -> None:
    """Let DeepSpeed use the process group."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed requires this variable even if the process group exists.
    os.environ.setdefault("LOCAL_RANK", str(ranks.device.index or 0))
    load_cpu_op()
    deepspeed.init_distributed(
        dist_backend="nccl" if ranks.device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
    )


def gathered(
    parameter: Tensor, *, is_changed: bool = False
) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a parameter has its full values, even if it is partitioned.

    Collective for a partitioned parameter. With `is_changed`, the values of the main rank are kept.
    """
    if not hasattr(parameter, "ds_id"):
        return contextlib.nullcontext()
    gather: contextlib.AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
        [parameter], modifier_rank=0 if is_changed else None
    )
    return gather


def _check_override(settings: dict[str, Any]) -> None:
    """Raise an InputError if DeepSpeed rejects or ignores some of `settings`, with an override."""
    noted = ReadKeys(settings)
    try:
        config = deepspeed.DeepSpeedConfig(noted)
        # DeepSpeed reads these names only when it builds the engine.
        for dtype in (config.grad_accum_dtype, config.param_dtype, config.buffer_dtype):
            if dtype is not None:
                DtypeEnum(dtype)
    except _CONFIG_ERRORS as error:
        raise InputError(override_problems(error)) from error
    if noted.unknown:
        raise InputError(unknown_key_problems(noted))


def load_cpu_op() -> bool:
    """Compile or load DeepSpeed's CPU operation; return False if the device needs none.

    One process at a time, because concurrent builds damage the build folder, and then every later
    process builds again. A killed process's file lock ends with it. Its torch lock does not: torch
    would wait for it without a timeout. Each environment has its own build: two that share one
    build it again in turn, because ninja compares the paths of torch's headers.
    """
    if uses_cuda():
        return False
    environment = f"{sys.prefix} {torch.__version__} {deepspeed.__version__}"
    build = f"plw-{hashlib.sha256(environment.encode()).hexdigest()[:12]}"
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(get_default_build_root()) / build))
    folder = Path(_get_build_directory("deepspeed_shm_comm", verbose=False))
    with FileLock(folder / "plw.lock"):
        (folder / "lock").unlink(missing_ok=True)
        return build_shm_op() is not None
