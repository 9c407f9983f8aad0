"""Settings of the evaluations of a model."""

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evals.config_base import EvalSettings, PositiveInt, absolute_path
from evals.engine_config import Engine, VllmConfig
from evals.judge_config import (
    PLW_0,
    AlpacaEvalConfig,
    JudgeConfig,
    JudgedSetConfig,
    PandaLMPromptsConfig,
)

PaperGroup = Literal["multiple_choice", "short_generation", "long_generation"]
# The last one has our own measures on held-out examples, which are not published benchmarks.
Group = Literal["multiple_choice", "short_generation", "long_generation", "heldout"]
BenchmarkKind = Literal["multiple_choice", "exact_match", "chrf", "bleu", "rouge_l"]
TaskTemplate = Literal["none", "checkpoint"]
HELDOUT_EVALUATIONS = (
    "heldout",
    "heldout_choice",
    "heldout_exact_match",
    "heldout_chrf",
    "memorisation",
)
# The paper's benchmarks that a judge scores.
JUDGED_BENCHMARKS = ("alpaca_eval", "pandalm_prompts")

# These have no effect without a task or a custom benchmark.
_TASK_SETTINGS = (
    "tasks",
    "benchmarks",
    "data_root",
    "include_path",
    "allow_code_execution",
    "limit",
    "task_template",
    "system_instruction",
    "think_end_token",
)

Count = Annotated[int, Field(ge=0)]
HeldoutSize = Annotated[
    PositiveInt,
    Field(
        description="Held-out examples, sampled with the seed; all of them if fewer are held out."
    ),
]
MaxNewTokens = Annotated[PositiveInt, Field(description="Maximum tokens of an output.")]
ItemLimit = Annotated[
    PositiveInt | None,
    Field(description="Score at most this many items, from the first; null: evals.limit."),
]
MAX_SEED = 2**32 - 1  # NumPy's maximum, as for training.
# Number of held-out examples per batch for `auto` where their tokens are only read. For benchmarks,
# the number of tokens limits a batch; for outputs, the engine.
AUTO_BATCH_SIZE = 16


class HeldoutConfig(EvalSettings):
    """Mean loss of completion tokens and of prompt tokens on held-out examples."""

    examples: HeldoutSize = 64


class DistractorChoiceConfig(EvalSettings):
    """`heldout.choice`: the true completion against sampled ones, by log-likelihood per byte."""

    examples: HeldoutSize = 64
    choices: int = Field(
        default=4, ge=2, le=26, description="The true completion plus sampled distractors."
    )


class GenerationConfig(EvalSettings):
    """Greedy outputs for held-out prompts, compared with the true completions."""

    examples: HeldoutSize = 64
    max_new_tokens: MaxNewTokens = 32
    invert: bool = Field(
        default=False,
        description="Swap prompt and completion of each example: generate the prompt.",
    )


class MemorisationConfig(EvalSettings):
    """Greedy outputs for training prompts and as many held-out prompts; an explanatory metric."""

    examples: PositiveInt = Field(
        default=32, description="Training prompts, and as many held-out prompts."
    )
    max_new_tokens: MaxNewTokens = 64


class TaskConfig(EvalSettings):
    """A benchmark with lm-eval's prompts and metrics. A name alone is accepted, too."""

    name: str = Field(
        min_length=1,
        description="Task or group of lm-eval, or a group of the paper: multiple_choice, "
        "short_generation.",
    )
    num_fewshot: Count | None = Field(
        default=None, description="Few-shot examples in the prompt; null: the task's default."
    )
    limit: ItemLimit = None
    metric: str | None = Field(
        default=None,
        min_length=1,
        description="Metric of the main score; null: acc_norm, acc or exact_match, whichever the "
        "task has first, or the first aggregate of a group.",
    )
    filter: str | None = Field(
        default=None,
        min_length=1,
        description="Filter of the outputs for the main score, such as flexible-extract of gsm8k; "
        "null: the task's first.",
    )


class BenchmarkConfig(EvalSettings):
    """A custom benchmark: JSONL with `prompt`, and either `choices` and `label`, or `target`."""

    name: str = Field(min_length=1, description="Name of the score.")
    path: str = Field(min_length=1, description="JSONL file, one item per line.")
    kind: BenchmarkKind = Field(description="How outputs are scored.")
    group: Group | None = Field(
        default=None,
        description="Group of the score; null: multiple_choice for that kind, else "
        "short_generation.",
    )
    num_fewshot: Count = Field(default=0, description="Few-shot examples from the same file.")
    limit: ItemLimit = None
    max_new_tokens: MaxNewTokens = 64
    stop: list[str] = Field(default=["\n\n"], description="Stop strings, which end an output.")


def _task_from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EvalConfig(EvalSettings):
    """Evaluations of each trained model and of the untuned model; null skips one."""

    heldout: HeldoutConfig | None = HeldoutConfig()
    heldout_choice: DistractorChoiceConfig | None = DistractorChoiceConfig()
    heldout_exact_match: GenerationConfig | None = GenerationConfig()
    heldout_chrf: GenerationConfig | None = GenerationConfig(
        examples=16, max_new_tokens=64, invert=True
    )
    memorisation: MemorisationConfig | None = None
    tasks: list[
        Annotated[
            TaskConfig, BeforeValidator(_task_from_name, json_schema_input_type=str | TaskConfig)
        ]
    ] = Field(default=[], description="Benchmarks of lm-eval, by name.")
    benchmarks: list[BenchmarkConfig] = Field(default=[], description="Custom benchmarks.")
    alpaca_eval: AlpacaEvalConfig | None = None
    pandalm_prompts: PandaLMPromptsConfig | None = None
    judged: list[JudgedSetConfig] = Field(
        default=[], description="Custom sets of prompts and reference outputs, scored by the judge."
    )
    judge: JudgeConfig | None = Field(
        default=None, description="The judge of alpaca_eval, pandalm_prompts and judged."
    )
    data_root: str | None = Field(
        default=None,
        description="Folder with local files of the paper's benchmarks; null: the hub.",
    )
    include_path: str | None = Field(
        default=None,
        description="Folder with your own task and group files of lm-eval; null: lm-eval's only.",
    )
    allow_code_execution: bool = Field(
        default=False,
        description="Run the code that a model writes, as humaneval and mbpp require. Only in a "
        "sandbox (docs/security.md).",
    )
    limit: PositiveInt | None = Field(
        default=None,
        description="Score at most this many items of each benchmark, from the first; null: all.",
    )
    task_template: TaskTemplate = Field(
        default="none",
        description="Prompts of tasks and benchmarks unchanged (none), or in the template of the "
        "checkpoint's training.",
    )
    system_instruction: str | None = Field(
        default=None,
        min_length=1,
        description="System message of the prompts of tasks and benchmarks; without a template, "
        "text before each prompt.",
    )
    think_end_token: str | None = Field(
        default=None,
        min_length=1,
        description="Text that ends a model's thinking, such as </think>: outputs of tasks and "
        "benchmarks are scored from there. Give generation enough tokens for the thinking.",
    )
    batch_size: PositiveInt | Literal["auto"] = Field(
        default="auto", description="Examples per batch; auto chooses the size."
    )
    engine: Engine = Field(
        default="auto",
        description="How outputs are generated: in padded batches, in continuous batches, or by a "
        "vLLM server; auto: continuous on a GPU, if they can run the model.",
    )
    vllm: VllmConfig = VllmConfig()
    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_SEED,
        description="Seed of sampled items, distractors, few-shot examples and bootstrap.",
    )

    @property
    def heldout_batch_size(self) -> int:
        """Return the batch size of evaluations that read the tokens of held-out examples."""
        return AUTO_BATCH_SIZE if self.batch_size == "auto" else self.batch_size

    @property
    def generation_batch_size(self) -> int | None:
        """Return the maximum number of outputs at the same time; None: the engine chooses."""
        return None if self.batch_size == "auto" else self.batch_size

    @property
    def uses_heldout_examples(self) -> bool:
        """Return whether any evaluation needs held-out examples."""
        return any(getattr(self, name) is not None for name in HELDOUT_EVALUATIONS)

    @property
    def uses_judge(self) -> bool:
        """Return whether any evaluation needs the judge."""
        return bool(self.alpaca_eval or self.pandalm_prompts or self.judged)

    @property
    def needs_plw_0_trial(self) -> bool:
        """Return whether the opponent in pandalm_prompts is the sweep's trial with PLW 0."""
        return self.pandalm_prompts is not None and self.pandalm_prompts.opponent == PLW_0

    def scoring_settings(self) -> dict[str, Any]:
        """Return the settings that scores depend on, JSON-serialisable.

        Sections without an evaluation are omitted, so that they do not change the identity of
        earlier scores.
        """
        judged_fields = {*JUDGED_BENCHMARKS, "judged"}
        settings = self.model_dump(
            mode="json", exclude={"seed", "batch_size", "engine", "vllm", "judge", *judged_fields}
        )
        if self.memorisation is None:
            # Scores from before this evaluation existed remain valid.
            del settings["memorisation"]
        if self.uses_judge and self.judge is not None:
            judged = self.model_dump(mode="json", include=judged_fields, exclude_none=True)
            settings |= {name: section for name, section in judged.items() if section}
            if self.alpaca_eval is not None:
                # Earlier releases judged AlpacaEval's prompts with another judge prompt.
                settings["alpaca_eval"] = {**judged["alpaca_eval"], "style": "alpaca_eval"}
            settings["judge"] = self.judge.scoring_settings()
        if not self.tasks and not self.benchmarks:
            for name in _TASK_SETTINGS:
                del settings[name]
        return settings

    def with_absolute_paths(self) -> Self:
        """Return a copy with absolute paths, for a process with another working directory."""
        changes: dict[str, Any] = {
            "data_root": self.data_root and absolute_path(self.data_root),
            "include_path": self.include_path and absolute_path(self.include_path),
            "vllm": self.vllm.with_absolute_paths(),
            "benchmarks": [
                benchmark.model_copy(update={"path": absolute_path(benchmark.path)})
                for benchmark in self.benchmarks
            ],
        }
        for name in (*JUDGED_BENCHMARKS, "judge"):
            settings = getattr(self, name)
            changes[name] = settings and settings.with_absolute_paths()
        changes["judged"] = [judged.with_absolute_paths() for judged in self.judged]
        return self.model_copy(update=changes)

    @model_validator(mode="before")
    @classmethod
    def _expand_judged_tasks(cls, content: Any) -> Any:
        """Move judged benchmarks from `tasks` to their own sections, with their defaults.

        long_generation in `tasks` means both alpaca_eval and pandalm_prompts.
        """
        tasks = content.get("tasks") if isinstance(content, dict) else None
        if not isinstance(tasks, list):
            return content
        names = [task.get("name") if isinstance(task, dict) else task for task in tasks]
        section_names: dict[Any, tuple[str, ...]] = {name: (name,) for name in JUDGED_BENCHMARKS}
        section_names["long_generation"] = JUDGED_BENCHMARKS
        others = [
            task for task, name in zip(tasks, names, strict=True) if name not in section_names
        ]
        sections: dict[str, Any] = {}
        for task, name in zip(tasks, names, strict=True):
            limit = task.get("limit") if isinstance(task, dict) else None
            for section in section_names.get(name, ()):
                default = {} if limit is None else {"examples": limit}
                sections[section] = content.get(section) or default
        return {**content, **sections, "tasks": others}

    @model_validator(mode="after")
    def _check_evaluations(self) -> Self:
        if not (self.uses_heldout_examples or self.tasks or self.benchmarks or self.uses_judge):
            raise ValueError("evals must configure at least one evaluation")
        if self.uses_judge and self.judge is None:
            raise ValueError("evals.judge must be set for alpaca_eval, pandalm_prompts and judged")
        custom_names = [*(b.name for b in self.benchmarks), *(j.name for j in self.judged)]
        counts = Counter([*(task.name for task in self.tasks), *custom_names])
        duplicates = [name for name, count in counts.items() if count > 1]
        reserved = [
            name for name in custom_names if name in (*HELDOUT_EVALUATIONS, *JUDGED_BENCHMARKS)
        ]
        if duplicates or reserved:
            raise ValueError(
                "names in evals.tasks, benchmarks and judged must be unique and not those of"
                f" built-in evaluations, got {(duplicates or reserved)[0]}"
                f"{' twice' if duplicates else ''}"
            )
        return self
