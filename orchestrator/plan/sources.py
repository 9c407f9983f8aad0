"""Read the models and data sets of a sweep, each of them once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from evals.config import EvalConfig
from evals.heldout.examples import check_examples, examples_sha256
from orchestrator.plan.data_fingerprint import fingerprint_data
from orchestrator.plan.fingerprint import fingerprint_model
from orchestrator.plan.tokens_version import tokens_version
from trainers.config import ModelConfig
from trainers.data.examples import Example
from trainers.data.length_stats import DataStats, compute_data_stats
from trainers.data.template_source import with_date
from trainers.data.tokenize import Split, encode_examples, encode_heldout, read_split
from trainers.data.tokenized import EncodedExamples
from trainers.data.training_data import check_token_ids
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem
from trainers.models.loading import (
    check_max_length,
    check_model,
    count_parameters,
    load_tokenizer,
    num_embeddings,
    resolve_model_path,
)


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """An untrained model. `path` is a folder or a hub name, as transformers accepts it.

    `num_parameters` is None for a model that has not been downloaded.
    """

    path: str
    fingerprint: str
    num_parameters: int | None
    num_embeddings: int
    note: str | None
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """The data of a trial: fingerprint, held-out and training examples, lengths in tokens.

    `has_extras`: some examples have weights, tools or reasoning, which the fingerprint includes.
    `heldout_is_truncated`: of the held-out examples that are scored during training, some are
    longer than data.max_length.
    """

    fingerprint: str
    has_extras: bool
    heldout: list[Example]
    heldout_digest: str
    examples: EncodedExamples
    heldout_is_truncated: bool
    stats: DataStats


@dataclass(frozen=True)
class _SplitSource:
    """All training and held-out examples, before `train_examples` limits the former."""

    split: Split
    heldout_digest: str


class Sources:
    """Reads models and data sets at first use; caches them and the errors of failed reads."""

    def __init__(self, evals: EvalConfig) -> None:
        self._evals = evals
        self._models: dict[str, ModelSource | InputError] = {}
        self._splits: dict[str, _SplitSource | InputError] = {}
        self._data: dict[tuple[str, str], DataSource | InputError] = {}

    def load(self, model: ModelConfig, data: DataConfig) -> tuple[ModelSource, DataSource]:
        """Return the configured model and data; the data is tokenised for the model.

        Raises:
            InputError: the model is missing or cannot be trained, or the data cannot be read,
                split, tokenised or used for scores; lists all problems of both.
        """
        problems: list[Problem] = []
        for read in (lambda: self._model(model), lambda: self._split(data)):
            try:
                read()
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        source = self._model(model)
        check_max_length(model, data.max_length)
        key = (data.model_dump_json(), source.fingerprint)
        return source, _load_once(self._data, key, lambda: self._read_data(data, source))

    def with_date(self, model: ModelConfig, data: DataConfig, today: date) -> DataConfig:
        """Return the data's settings with this date, if their template needs one.

        The settings are unchanged if the model or the template is invalid, which `load` reports.
        """
        try:
            return with_date(data, self._model(model).tokenizer, today)
        except InputError:
            return data

    def _model(self, config: ModelConfig) -> ModelSource:
        key = config.model_dump_json(exclude={"dropout"})
        return _load_once(self._models, key, lambda: _read_model(config))

    def _split(self, config: DataConfig) -> _SplitSource:
        key = config.model_dump_json(
            include={
                *("path", "name", "revision", "split", "columns", "sources", "ignore", "drop"),
                *("heldout_examples", "seed"),
            }
        )
        return _load_once(self._splits, key, lambda: self._read_split(config))

    def _read_data(self, config: DataConfig, model: ModelSource) -> DataSource:
        source = self._split(config)
        train, heldout = source.split.train[: config.train_examples], source.split.heldout
        encoded = encode_examples(train, config, model.tokenizer)
        scored = encode_heldout(heldout, config, model.tokenizer) if heldout else []
        check_token_ids(encoded, scored, model.num_embeddings, model.tokenizer)
        identity = fingerprint_data(train, heldout)
        return DataSource(
            fingerprint=identity.fingerprint,
            has_extras=identity.has_extras,
            heldout=list(heldout),
            heldout_digest=source.heldout_digest,
            examples=encoded,
            heldout_is_truncated=any(example.num_truncated_tokens for example in scored),
            stats=compute_data_stats(encoded, config, source.split.reading),
        )

    def _read_split(self, config: DataConfig) -> _SplitSource:
        split = read_split(config.model_copy(update={"train_examples": None}))
        try:
            check_examples(split.heldout, self._evals)
        except InputError as error:
            raise InputError(
                [Problem(message=p.message, where=p.where or config.label, fix=p.fix)
                 for p in error.problems]
            ) from None  # fmt: skip
        return _SplitSource(split, examples_sha256(split.heldout))


Key = TypeVar("Key")
Source = TypeVar("Source")


def _load_once(
    known: dict[Key, Source | InputError], key: Key, read: Callable[[], Source]
) -> Source:
    """Return `known[key]`; if it is missing, call `read` first and store its result.

    Raises:
        InputError: `read` failed, now or in an earlier call.
    """
    if key not in known:
        try:
            known[key] = read()
        except InputError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, InputError):
        raise InputError(found.problems)
    return found


def _read_model(config: ModelConfig) -> ModelSource:
    check_model(config)
    path = resolve_model_path(config.path)
    tokenizer = load_tokenizer(config)
    return ModelSource(
        path=path,
        fingerprint=fingerprint_model(config) + tokens_version(tokenizer),
        num_parameters=count_parameters(path),
        num_embeddings=num_embeddings(config),
        note=_note(Path(path)),
        tokenizer=tokenizer,
    )


def _note(folder: Path) -> str | None:
    """Return the note in a model's SOURCE.json; None if there is no note."""
    source = folder / "SOURCE.json"
    content: dict[str, Any] = json.loads(source.read_text("utf-8")) if source.exists() else {}
    return str(content["note"]) if content.get("note") else None
