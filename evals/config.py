"""Which benchmarks to run and how large they are."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Group = Literal["multiple_choice", "short_generation", "long_generation"]
Metric = Literal["accuracy", "exact_match", "chrf"]

PositiveInt = Annotated[int, Field(ge=1)]
MAX_SEED = 2**32 - 1  # As for training: the largest that NumPy takes.


class EvalSection(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class HeldoutConfig(EvalSection):
    """Mean loss of completion tokens and of prompt tokens on held-out examples."""

    examples: PositiveInt = 64


class MultipleChoiceConfig(EvalSection):
    """The true completion among drawn ones, picked by length-normalised log-likelihood."""

    examples: PositiveInt = 64
    choices: Annotated[int, Field(ge=2, le=26)] = 4


class GenerationConfig(EvalSection):
    """Greedy completions of held-out prompts, compared with the true ones."""

    examples: PositiveInt = 64
    max_new_tokens: PositiveInt = 32
    invert: bool = Field(
        default=False, description="Swap the two sides of each pair: generate the prompt."
    )


class MemorisationConfig(EvalSection):
    """Greedy completions of training prompts, and of as many held-out ones: an explanation."""

    examples: PositiveInt = Field(default=32, description="Prompts of each kind.")
    max_new_tokens: PositiveInt = 64


class EvalConfig(EvalSection):
    """What each trained model, and the untuned one, is scored on. null leaves a measure out."""

    heldout: HeldoutConfig | None = HeldoutConfig()
    multiple_choice: MultipleChoiceConfig | None = MultipleChoiceConfig()
    short_generation: GenerationConfig | None = GenerationConfig()
    long_generation: GenerationConfig | None = GenerationConfig(
        examples=16, max_new_tokens=64, invert=True
    )
    memorisation: MemorisationConfig | None = None
    batch_size: PositiveInt = Field(default=16, description="Examples scored at once.")
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="Seed of item choice, distractors and bootstrap."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        measures = (
            self.heldout,
            self.multiple_choice,
            self.short_generation,
            self.long_generation,
            self.memorisation,
        )
        if not any(measures):
            raise ValueError("evals must keep at least one measure")
        return self
