"""Which benchmarks to run and how large they are."""

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evals.config_base import EvalSection, PositiveInt, absolute
from evals.judge_config import AlpacaEvalConfig, JudgeConfig, JudgedSetConfig, PandaLMConfig

Group = Literal["multiple_choice", "short_generation", "long_generation"]
Metric = Literal["accuracy", "exact_match", "chrf"]
BenchmarkKind = Literal["multiple_choice", "exact_match", "chrf", "bleu", "rouge_l"]
TaskTemplate = Literal["none", "checkpoint"]
MEASURES = ("heldout", "multiple_choice", "short_generation", "long_generation", "memorisation")
# Those of the paper's benchmarks that a judge decides.
JUDGED = ("alpaca_eval", "pandalm")

Count = Annotated[int, Field(ge=0)]
MAX_SEED = 2**32 - 1  # As for training: the largest that NumPy takes.
# Held-out examples of a batch whose size is left to us; benchmarks go by tokens instead.
AUTO_BATCH_SIZE = 16


class HeldoutConfig(EvalSection):
    """Mean loss of completion tokens and of prompt tokens on held-out examples."""

    examples: PositiveInt = Field(default=64, description="Held-out examples, drawn by the seed.")


class MultipleChoiceConfig(EvalSection):
    """The true completion among drawn ones, picked by length-normalised log-likelihood."""

    examples: PositiveInt = Field(default=64, description="Held-out examples, drawn by the seed.")
    choices: int = Field(
        default=4, ge=2, le=26, description="The true completion and others that are drawn."
    )


class GenerationConfig(EvalSection):
    """Greedy completions of held-out prompts, compared with the true ones."""

    examples: PositiveInt = Field(default=64, description="Held-out examples, drawn by the seed.")
    max_new_tokens: PositiveInt = Field(default=32, description="Tokens of an output at most.")
    invert: bool = Field(
        default=False, description="Swap the two sides of each pair: generate the prompt."
    )


class MemorisationConfig(EvalSection):
    """Greedy completions of training prompts, and of as many held-out ones: an explanation."""

    examples: PositiveInt = Field(default=32, description="Prompts of each kind.")
    max_new_tokens: PositiveInt = Field(default=64, description="Tokens of an output at most.")


class TaskConfig(EvalSection):
    """A benchmark with lm-eval's prompts and metrics. A name alone stands for one, too."""

    name: str = Field(
        min_length=1,
        description="A task or group of lm-eval, or a group of the paper's: multiple_choice, "
        "short_generation.",
    )
    num_fewshot: Count | None = Field(
        default=None, description="Solved examples in the prompt; null takes the task's own number."
    )
    limit: PositiveInt | None = Field(
        default=None, description="Score the first so many items; null takes evals.limit."
    )


class BenchmarkConfig(EvalSection):
    """A benchmark of one's own: a JSONL file with `prompt`, and `choices` and `label`, or `target`.

    `kind` says how outputs are scored.
    """

    name: str = Field(min_length=1, description="What its score is called.")
    path: str = Field(min_length=1, description="The JSONL file, one item a line.")
    kind: BenchmarkKind = Field(description="How outputs are scored.")
    group: Group | None = Field(
        default=None,
        description="Where its score counts; null: multiple_choice for that kind, else "
        "short_generation.",
    )
    num_fewshot: Count = Field(default=0, description="Other items of the file shown solved.")
    limit: PositiveInt | None = Field(
        default=None, description="Score the first so many items; null takes evals.limit."
    )
    max_new_tokens: PositiveInt = Field(default=64, description="Tokens of an output at most.")
    stop: list[str] = Field(default=["\n\n"], description="Texts that end an output.")


def _task_of_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EvalConfig(EvalSection):
    """What each trained model, and the untuned one, is scored on. null leaves a measure out."""

    heldout: HeldoutConfig | None = HeldoutConfig()
    multiple_choice: MultipleChoiceConfig | None = MultipleChoiceConfig()
    short_generation: GenerationConfig | None = GenerationConfig()
    long_generation: GenerationConfig | None = GenerationConfig(
        examples=16, max_new_tokens=64, invert=True
    )
    memorisation: MemorisationConfig | None = None
    tasks: list[
        Annotated[
            TaskConfig, BeforeValidator(_task_of_name, json_schema_input_type=str | TaskConfig)
        ]
    ] = Field(default=[], description="Benchmarks of lm-eval, by name.")
    benchmarks: list[BenchmarkConfig] = Field(default=[], description="Benchmarks of one's own.")
    alpaca_eval: AlpacaEvalConfig | None = None
    pandalm: PandaLMConfig | None = None
    judged: list[JudgedSetConfig] = Field(
        default=[], description="Sets of prompts and outputs of one's own, for the judge."
    )
    judge: JudgeConfig | None = Field(
        default=None, description="Who judges alpaca_eval, pandalm and judged."
    )
    data_root: str | None = Field(
        default=None,
        description="Folder with local files for the paper's benchmarks; null takes the hub's.",
    )
    limit: PositiveInt | None = Field(
        default=None, description="Score the first so many items of each benchmark; null all."
    )
    task_template: TaskTemplate = Field(
        default="none",
        description="Prompts of tasks and benchmarks as they are, or in the template that the "
        "checkpoint was trained with.",
    )
    batch_size: PositiveInt | Literal["auto"] = Field(
        default="auto", description="Examples scored at once; auto finds a size by itself."
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_SEED,
        description="Seed of item choice, distractors, few-shot examples and bootstrap.",
    )

    @property
    def examples_at_once(self) -> int:
        """The batch size of measures on held-out examples."""
        return AUTO_BATCH_SIZE if self.batch_size == "auto" else self.batch_size

    @property
    def takes_examples(self) -> bool:
        """Whether any measure is on held-out examples."""
        return any(getattr(self, name) is not None for name in MEASURES)

    @property
    def takes_judge(self) -> bool:
        """Whether any measure is decided by a judge."""
        return bool(self.alpaca_eval or self.pandalm or self.judged)

    def described(self) -> dict[str, Any]:
        """The measures, ready for JSON; what concerns benchmarks only where there are any."""
        judged = {*JUDGED, "judged"}
        described = self.model_dump(mode="json", exclude={"seed", "batch_size", "judge", *judged})
        if self.memorisation is None:
            # Models that were scored before there was such a measure are scored as asked.
            del described["memorisation"]
        asked = self.model_dump(mode="json", include=judged, exclude_none=True)
        if self.takes_judge and self.judge is not None:
            described |= {name: section for name, section in asked.items() if section}
            described["judge"] = self.judge.scoring_settings()
        if not self.tasks and not self.benchmarks:
            for name in ("tasks", "benchmarks", "data_root", "limit", "task_template"):
                del described[name]
        return described

    def with_absolute_paths(self) -> Self:
        """The same, for a process that runs in another folder."""
        changes: dict[str, Any] = {
            "data_root": self.data_root and absolute(self.data_root),
            "benchmarks": [
                own.model_copy(update={"path": absolute(own.path)}) for own in self.benchmarks
            ],
        }
        for name in (*JUDGED, "judge"):
            section = getattr(self, name)
            changes[name] = section and section.with_absolute_paths()
        changes["judged"] = [own.with_absolute_paths() for own in self.judged]
        return self.model_copy(update=changes)

    @model_validator(mode="before")
    @classmethod
    def _judged_by_name(cls, content: Any) -> Any:
        """alpaca_eval, pandalm or long_generation for both among the tasks stand for the sections
        of those names, with their defaults.
        """
        tasks = content.get("tasks") if isinstance(content, dict) else None
        if not isinstance(tasks, list):
            return content
        named = [task.get("name") if isinstance(task, dict) else task for task in tasks]
        meant: dict[Any, tuple[str, ...]] = {name: (name,) for name in JUDGED}
        meant["long_generation"] = JUDGED
        rest = [task for task, name in zip(tasks, named, strict=True) if name not in meant]
        sections: dict[str, Any] = {}
        for task, name in zip(tasks, named, strict=True):
            limit = task.get("limit") if isinstance(task, dict) else None
            for section in meant.get(name, ()):
                default = {} if limit is None else {"examples": limit}
                sections[section] = content.get(section) or default
        return {**content, **sections, "tasks": rest}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.takes_examples or self.tasks or self.benchmarks or self.takes_judge):
            raise ValueError("evals must keep at least one measure")
        if self.takes_judge and self.judge is None:
            raise ValueError("evals.judge must say who judges alpaca_eval, pandalm and judged")
        own_names = [*(b.name for b in self.benchmarks), *(j.name for j in self.judged)]
        names = Counter([*(t.name for t in self.tasks), *own_names])
        twice = [name for name, count in names.items() if count > 1]
        taken = [name for name in own_names if name in (*MEASURES, *JUDGED)]
        if twice or taken:
            raise ValueError(
                f"each of evals.tasks, benchmarks and judged needs a name of its own, got "
                f"{(twice or taken)[0]} {'twice' if twice else 'which is a measure'}"
            )
        return self
