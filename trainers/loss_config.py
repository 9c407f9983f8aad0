"""Settings of the loss: the weight of each kind of token, and what divides the weighted sum."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainers.config_base import StrictSettings

NormalizationMode = Literal["weights", "nonzero", "completion", "tokens", "examples"]
DataWeights = Literal["multiply", "replace"]
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class RoleWeights(StrictSettings):
    """Loss weights of single roles that override the defaults."""

    system: Weight | None = Field(
        None, description="Weight of a token of a system turn; null uses loss.prompt_loss_weight."
    )
    user: Weight | None = Field(
        None, description="Weight of a token of a user turn; null uses loss.prompt_loss_weight."
    )
    tool: Weight | None = Field(
        None, description="Weight of a token of a tool result; null uses loss.prompt_loss_weight."
    )
    history: Weight | None = Field(
        None,
        description="Weight of a token of an earlier answer, where data.completion_turns is last;"
        " null uses loss.prompt_loss_weight.",
    )
    template: Weight | None = Field(
        None, description="Weight of a template token; null uses loss.prompt_loss_weight."
    )
    thinking: Weight | None = Field(
        None,
        description="Weight of a token of the thinking before an answer; null uses the"
        " completion's weight.",
    )
    completion: Weight | None = Field(
        None,
        description="Weight of a completion token; null is 1. It can be searched together with "
        "loss.prompt_loss_weight.",
    )


class LossConfig(StrictSettings):
    prompt_loss_weight: Weight = Field(
        0.0, description="Weight of a prompt token; a completion token has weight 1."
    )
    role_weights: RoleWeights = Field(
        RoleWeights(), description="Weights of single roles that override the defaults."
    )
    data_weights: DataWeights = Field(
        "multiply",
        description=(
            "Weights of turns, parts and tokens in the data multiply or replace the weight of the "
            "token's role."
        ),
    )
    normalization: NormalizationMode = Field(
        "weights",
        description=(
            "Divisor of the weighted sum over the global batch: the sum of weights, the number of "
            "tokens with a weight above 0 (nonzero), of such completion tokens, or of all tokens; "
            "examples averages the examples' means, weighted by sample weight."
        ),
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each target's probability that is spread over the vocabulary."
    )

    @model_validator(mode="after")
    def _check_nonzero_weight(self) -> Self:
        roles = self.role_weights
        prompt = (roles.system, roles.user, roles.tool, roles.history, roles.template)
        prompt_counts = any(self.prompt_loss_weight if w is None else w for w in prompt)
        if roles.completion == 0 and not roles.thinking and not prompt_counts:
            raise ValueError(
                "the weight of at least one role must be above 0, but loss.role_weights.completion"
                ", that of thinking and those of all prompt roles are 0"
            )
        return self
