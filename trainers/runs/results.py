"""What a fine-tune reports, as plain data: cheap to import for whoever only reads it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one optimizer step was like, over the global batch of all ranks.

    `loss` is the weighted loss that was minimised: its scale moves with the prompt loss weight,
    so never compare it between trials. The two role losses are means in nats per token.
    `distance` is the L2 distance from the pre-trained weights, and the held-out losses are those
    after the step, of the same tokens in every trial; None where they were not measured.
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
    distance: float | None = None
    heldout_completion_loss: float | None = None
    heldout_prompt_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished fine-tune. `tokens_per_second` counts data tokens, not padding.

    `loss_rsd` and the distances are those of `trainers.runs.diagnostics`; None where there were too
    few steps, or nothing to measure. `device` is what the first rank ran on, as "NVIDIA H200" or
    "cpu"; None in results that were written before it was noted.
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
