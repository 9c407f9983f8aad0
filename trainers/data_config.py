"""Settings of the data: sources, template, truncation and the split."""

import glob
import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from trainers.config_base import (
    MAX_COUNT,
    MAX_EPOCHS,
    PathText,
    Positive,
    PositiveInt,
    Seed,
    StrictSettings,
)
from trainers.foundation.suggestions import did_you_mean

CompletionTurns = Literal["last", "all", "each"]
DropReason = Literal["empty", "negative"]
TooLong = Literal["truncate", "drop", "error"]
TruncationSide = Literal["left", "right"]


def _check_template_args(args: dict[str, Any]) -> dict[str, Any]:
    """Return template arguments with dates as text: YAML reads 2026-11-29 as a date."""
    texts = {k: v.isoformat() if isinstance(v, date) else v for k, v in args.items()}
    try:
        date.fromisoformat(texts.get("date", "2026-11-29"))
    except (TypeError, ValueError):
        raise ValueError(f"date must be a day such as 2026-11-29, got {args['date']!r}") from None
    try:
        json.dumps(texts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be plain values: {error}") from None
    return texts


TemplateArgs = Annotated[dict[str, Any], AfterValidator(_check_template_args)]

# Fields of records that data.columns can map to other names.
COLUMN_NAMES = (
    *("prompt", "completion", "instruction", "input", "output", "messages", "chosen"),
    *("system", "history", "tools", "weight", "label"),
    *("input_ids", "labels", "loss_mask", "loss_weights"),
)


def _check_columns(columns: dict[str, str]) -> dict[str, str]:
    for name in columns:
        if name not in COLUMN_NAMES:
            known = did_you_mean(name, COLUMN_NAMES) or f"use {', '.join(COLUMN_NAMES)}"
            raise ValueError(f"{name} is not a field that can be read from a column; {known}")
    if len(set(columns.values())) < len(columns):
        raise ValueError("each column can be read as one field only")
    return columns


Columns = Annotated[dict[str, str], AfterValidator(_check_columns)]


def _check_data_root(path: str) -> str:
    """Reject a folder or pattern that would search the whole machine or home folder."""
    folder = Path(path).expanduser()
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if folder.is_absolute() and folder in (Path("/"), Path("/home"), Path.home()):
        raise ValueError(f"must name a folder of data, not all of {folder}")
    return path


DataPath = Annotated[PathText, Field(min_length=1), AfterValidator(_check_data_root)]
HubName = Annotated[
    str | None, Field(description="Configuration of a hub data set; null takes its default.")
]
HubRevision = Annotated[
    str | None,
    Field(description="Branch, tag or commit of a hub data set; null takes the default branch."),
]
HubSplit = Annotated[str, Field(description="Split of a hub data set.")]


class SourceConfig(StrictSettings):
    """One of several data sets that are mixed."""

    path: DataPath = Field(description="As data.path.")
    name: HubName = None
    revision: HubRevision = None
    split: HubSplit = "train"
    columns: Columns = Field(default_factory=dict, description="As data.columns.")
    repeat: Annotated[float, Field(gt=0, le=MAX_EPOCHS, allow_inf_nan=False)] = Field(
        1.0,
        # Source: the names repeat and proportion of MosaicML Streaming's `Stream`.
        description=(
            "Uses of each training example of the source in one epoch: 0.5 is a random half, the "
            "same in all trials, 2 is every example twice."
        ),
    )
    proportion: Positive | None = Field(
        None,
        description=(
            "Share of the source in an epoch, relative to the other sources' proportions, instead "
            "of repeat. The epoch has as many examples as the sources together."
        ),
    )


class DataConfig(StrictSettings):
    path: DataPath | None = Field(
        None,
        description=(
            "JSONL, JSON, CSV, TSV (each also as .gz, .bz2 or .zst) or Parquet file, a folder or "
            "pattern (data/*.jsonl) of such files, a hub name, demo:python-docs-short or "
            "demo:python-docs-long. Alternative to sources."
        ),
    )
    name: HubName = None
    revision: HubRevision = None
    split: HubSplit = "train"
    columns: Columns = Field(
        default_factory=dict,
        description=(
            "Columns of the data with other names than ours: {prompt: question_text, completion: "
            "best_answer}. Ours: " + ", ".join(COLUMN_NAMES) + "."
        ),
    )
    sources: Annotated[tuple[SourceConfig, ...], Strict(False)] = Field(
        (),
        description=(
            "Several data sets, each with path, name, revision, split and columns like the "
            "settings above, and with repeat (uses of each training example in an epoch, default "
            "1) or proportion (share of the epoch). Examples are held out before they are repeated."
        ),
    )
    template: PathText = Field(
        "chat",
        min_length=1,
        description=(
            "chat (the model's chat template), alpaca, plain, chatml-tools (tools for models with "
            "ChatML's tokens), deepseek-r1, or the path of a Jinja file: a chat template, which "
            "reads add_generation_prompt, or one that renders `prompt`, `instruction`, `input` and "
            "`messages` up to the completion."
        ),
    )
    template_args: TemplateArgs = Field(
        default_factory=dict,
        description=(
            "Variables of the template, such as enable_thinking: false. A template that shows the "
            "date of today takes date (2026-11-29); if it is missing, the sweep's first day."
        ),
    )
    completion_turns: CompletionTurns = Field(
        "last",
        description=(
            "Assistant turns of a chat that are completions: last (earlier ones are part of the "
            "prompt), all (each with its end-of-turn token), or each (an example for each turn, "
            "with the chat up to it, for templates that change earlier turns)."
        ),
    )
    max_length: Annotated[int, Field(ge=8, le=MAX_COUNT)] = Field(
        512, description="Maximum tokens per example, including its end-of-sequence token."
    )
    ignore: Annotated[tuple[str, ...], Strict(False)] = Field(
        (),
        description=(
            "Fields of records and messages to train without, such as images or weight. Others "
            "that have a meaning and are not supported are an error."
        ),
    )
    drop: Annotated[tuple[DropReason, ...], Strict(False)] = Field(
        (),
        description=(
            "Records that are dropped and counted instead of rejected: empty (no answer), "
            "negative (marked as a bad answer by label: false)."
        ),
    )
    too_long: TooLong = Field(
        "truncate",
        description=(
            "Handling of longer examples: truncate (remove the oldest turns, then cut the texts of "
            "users and tools in the last exchange), drop, or error."
        ),
    )
    truncation_side: TruncationSide = Field(
        "left", description="Side on which truncation cuts a text of a user or a tool."
    )
    too_long_completion: TooLong = Field(
        "drop",
        description=(
            "Handling of an example that data.too_long truncates but that only fits if its "
            "completion loses its end: truncate (train without an end token), drop, or error."
        ),
    )
    heldout_examples: Annotated[int, Field(ge=0, le=MAX_COUNT)] = Field(
        256,
        description=(
            "Examples held out from training, drawn by data.seed; 0 trains on all, for a final "
            "model that is not scored."
        ),
    )
    train_examples: PositiveInt | None = Field(
        None, description="Number of training examples to use; null uses all."
    )
    seed: Seed = Field(0, description="Seed of the held-out split, the same for all trials.")

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if (self.path is None) == (not self.sources):
            raise ValueError("set exactly one of data.path and data.sources")
        of_path = (self.name, self.revision, self.split, self.columns)
        changed = [
            key
            for key, value in zip(("name", "revision", "split", "columns"), of_path, strict=True)
            if value not in (None, "train", {})
        ]
        if self.sources and changed:
            raise ValueError(
                f"data.{changed[0]} belongs to data.path; set {changed[0]} in the entries of"
                " data.sources"
            )
        with_proportion = [source.proportion is not None for source in self.sources]
        if any(with_proportion) and not all(with_proportion):
            raise ValueError("data.sources: set proportion for all sources, or for none")
        if any(one.proportion is not None and one.repeat != 1 for one in self.sources):
            raise ValueError("data.sources: set repeat or proportion, not both")
        return self

    @property
    def label(self) -> str:
        """The path, or the paths of all sources, for messages and tables."""
        return ", ".join(source.path for source in self.all_sources())

    def all_sources(self) -> tuple[SourceConfig, ...]:
        """Return the sources; `path` with its settings is a single source."""
        if self.path is None:
            return self.sources
        return (
            SourceConfig(
                path=self.path,
                name=self.name,
                revision=self.revision,
                split=self.split,
                columns=self.columns,
            ),
        )
