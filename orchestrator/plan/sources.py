"""The models and data sets of a sweep: each is read once, however many trials start from it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from evals.config import EvalConfig
from evals.heldout.examples import check_examples, digest
from orchestrator.plan.fingerprint import fingerprint_examples, fingerprint_model
from trainers.config import DataConfig, ModelConfig
from trainers.data.examples import Example
from trainers.data.length_stats import DataStats, data_stats
from trainers.data.tokenize import Split, encode_all, read_split
from trainers.foundation.errors import InputError, Problem
from trainers.models.loading import check_model, load_tokenizer, resolve_model_path


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model before it is trained. `path` is as transformers takes it: a folder or a hub name.

    `num_parameters` is None for a model that is not here yet.
    """

    path: str
    fingerprint: str
    num_parameters: int | None
    note: str | None
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set as a trial takes it: what it says, what is held out, how long it is in tokens."""

    fingerprint: str
    heldout: list[Example]
    heldout_digest: str
    stats: DataStats


@dataclass(frozen=True)
class _SplitSource:
    """All training examples, before `train_examples` takes some of them."""

    split: Split
    heldout_digest: str


class Sources:
    """Reads models and data sets when they are first asked for; what cannot be read stays so."""

    def __init__(self, evals: EvalConfig) -> None:
        self._evals = evals
        self._models: dict[str, ModelSource | InputError] = {}
        self._splits: dict[str, _SplitSource | InputError] = {}
        self._data: dict[tuple[str, str], DataSource | InputError] = {}

    def of(self, model: ModelConfig, data: DataConfig) -> tuple[ModelSource, DataSource]:
        """The model and the data that are named, the data in the tokens of the model.

        Raises:
            InputError: what is wrong with either: a model that is not there or cannot be trained,
                data that cannot be read, split, tokenised or scored on.
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
        key = (data.model_dump_json(), source.fingerprint)
        return source, _once(self._data, key, lambda: self._read_data(data, source))

    def _model(self, config: ModelConfig) -> ModelSource:
        key = config.model_dump_json(include={"path", "revision", "trust_remote_code"})
        return _once(self._models, key, lambda: _read_model(config))

    def _split(self, config: DataConfig) -> _SplitSource:
        key = config.model_dump_json(include={"path", "split", "heldout_examples", "seed"})
        return _once(self._splits, key, lambda: self._read_split(config))

    def _read_data(self, config: DataConfig, model: ModelSource) -> DataSource:
        source = self._split(config)
        train, heldout = source.split.train[: config.train_examples], source.split.heldout
        return DataSource(
            fingerprint=fingerprint_examples([*train, *heldout]),
            heldout=heldout,
            heldout_digest=source.heldout_digest,
            stats=data_stats(encode_all(train, config, model.tokenizer), config),
        )

    def _read_split(self, config: DataConfig) -> _SplitSource:
        split = read_split(config.model_copy(update={"train_examples": None}))
        try:
            check_examples(split.heldout, self._evals)
        except InputError as error:
            raise InputError(
                [Problem(message=p.message, where=p.where or config.path, fix=p.fix)
                 for p in error.problems]
            ) from None  # fmt: skip
        return _SplitSource(split, digest(split.heldout))


Key = TypeVar("Key")
Source = TypeVar("Source")


def _once(known: dict[Key, Source | InputError], key: Key, read: Callable[[], Source]) -> Source:
    """What is known under `key`, read if need be.

    Raises:
        InputError: it could not be read, now or earlier.
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
    return ModelSource(
        path=path,
        fingerprint=fingerprint_model(config),
        num_parameters=count_parameters(path),
        note=_note(Path(path)),
        tokenizer=load_tokenizer(config),
    )


def _note(folder: Path) -> str | None:
    """The caveat that came with a model."""
    source = folder / "SOURCE.json"
    content: dict[str, Any] = json.loads(source.read_text("utf-8")) if source.exists() else {}
    return str(content["note"]) if content.get("note") else None


def count_parameters(path: str) -> int | None:
    """Parameters in a folder's safetensors headers; None for a model that is not here yet.

    Raises:
        InputError: a file is damaged, such as one that was not copied whole.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as tensors:
                keys = tensors.keys()
                total += sum(prod(tensors.get_slice(key).get_shape()) for key in keys)
        except SafetensorError as error:
            raise InputError(
                Problem(
                    message=f"the weights cannot be read: {error}",
                    where=str(file),
                    fix="copy or download the file again, or save the model with save_pretrained",
                )
            ) from None
    return total
