"""Metrics and result of a fine-tune, as data classes that import no torch."""

from dataclasses import dataclass, fields
from typing import Any

from trainers.foundation.records import warn_of_unknown


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Metrics of one optimizer step, over the global batch of all ranks.

    `loss` is the weighted training loss. Its scale depends on the prompt loss weight, so it must
    not be compared between trials. The two role losses are means in nats per token. `distance` is
    the L2 distance from the pre-trained weights. The held-out losses are measured after the step,
    on the same tokens in every trial. `num_weighted_tokens` counts tokens with a weight above 0.
    `trainers.engine.performance` defines `mfu`, and `peak_memory_bytes` since the start of the run,
    on the rank with the highest peak. None means not measured, or unknown for the device.
    """

    step: int
    total_steps: int
    time: float
    loss: float
    completion_loss: float | None
    prompt_loss: float | None
    learning_rate: float
    grad_norm: float
    num_tokens: int
    tokens_per_second: float
    num_weighted_tokens: int | None = None
    tokens_per_second_per_gpu: float | None = None
    mfu: float | None = None
    peak_memory_bytes: int | None = None
    distance: float | None = None
    heldout_completion_loss: float | None = None
    heldout_prompt_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Result of a finished fine-tune. `tokens_per_second` counts data tokens, not padding.

    `trainers.runs.diagnostics` defines `loss_rsd` and the distances. They are None if there were
    too few steps or nothing was measured. `device` is the device of the main rank, such as "NVIDIA
    H200" or "cpu". `exported_step` is the step of the exported model. The held-out losses, in nats
    per token, are those after the last step, if it was measured, and of the exported model, with
    `export_best_every_steps`. None means not measured, or an older result.
    """

    model_path: str
    steps: int
    num_tokens: int
    seconds: float
    tokens_per_second: float
    completion_loss: float | None
    prompt_loss: float | None
    loss_rsd: float | None = None
    distance: float | None = None
    distance_by_layer: dict[str, float] | None = None
    device: str | None = None
    exported_step: int | None = None
    last_heldout_completion_loss: float | None = None
    exported_heldout_completion_loss: float | None = None

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> "TrainResult":
        """Return the result in a train.json; fields of a newer release are ignored."""
        known = {field.name for field in fields(cls)}
        warn_of_unknown(cls.__name__, content.keys() - known)
        return cls(**{name: value for name, value in content.items() if name in known})
