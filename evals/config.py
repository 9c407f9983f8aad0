"""Which benchmarks to run and how large they are."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evals.judge_config import AlpacaEvalConfig, JudgeConfig, JudgedSetConfig, PandaLMConfig
from evals.section import EvalSection, PositiveInt

Group = Literal["multiple_choice", "short_generation", "long_generation"]
Metric = Literal["accuracy", "exact_match", "chrf"]

_NAMES = (
    "heldout",
    "multiple_choice",
    "short_generation",
    "long_generation",
    "alpaca_eval",
    "pandalm",
)
MAX_SEED = 2**32 - 1  # As for training: the largest that NumPy takes.


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


class EvalConfig(EvalSection):
    """What each trained model, and the untuned one, is scored on. null leaves a measure out."""

    heldout: HeldoutConfig | None = HeldoutConfig()
    multiple_choice: MultipleChoiceConfig | None = MultipleChoiceConfig()
    short_generation: GenerationConfig | None = GenerationConfig()
    long_generation: GenerationConfig | None = GenerationConfig(
        examples=16, max_new_tokens=64, invert=True
    )
    alpaca_eval: AlpacaEvalConfig | None = None
    pandalm: PandaLMConfig | None = None
    judged: tuple[JudgedSetConfig, ...] = Field(
        default=(), strict=False, description="Sets of one's own for the judge."
    )
    judge: JudgeConfig | None = Field(
        default=None, description="Who judges alpaca_eval, pandalm and judged."
    )
    batch_size: PositiveInt = Field(default=16, description="Examples scored at once.")
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="Seed of item choice, distractors and bootstrap."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        own = (self.heldout, self.multiple_choice, self.short_generation, self.long_generation)
        judged = (self.alpaca_eval, self.pandalm, *self.judged)
        if not any((*own, *judged)):
            raise ValueError("evals must keep at least one measure")
        if any(judged) and self.judge is None:
            raise ValueError("evals.judge must say who judges alpaca_eval, pandalm and judged")
        names = [item.name for item in self.judged]
        if len({*names, *_NAMES}) < len(names) + len(_NAMES):
            raise ValueError("evals.judged: each set needs a name of its own")
        return self
