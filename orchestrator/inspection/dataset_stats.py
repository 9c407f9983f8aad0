"""Count the tokens of a data set, and the uses of its sources."""

from pydantic import BaseModel, ConfigDict

from orchestrator.inspection.data_settings import DataSettings
from trainers.config import ModelConfig
from trainers.data.length_stats import DataStats, compute_data_stats
from trainers.data.template_source import utc_today, with_date
from trainers.data.tokenize import encode_examples, read_split
from trainers.data_config import DataConfig
from trainers.models.loading import load_tokenizer


class SourceUses(BaseModel):
    """Of one source, the number of different examples in an epoch, and of their uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    num_used: int
    num_uses: int


def dataset_stats(settings: DataSettings) -> DataStats:
    """Count the tokens of all examples of an epoch by role, with the model's tokenizer.

    No example is held out; those of `data.sources` count as often as they are used.

    Raises:
        InputError: the data, the model or the template is invalid.
    """
    return data_stats(settings.config.model, settings.config.data)


def data_stats(model: ModelConfig, data: DataConfig) -> DataStats:
    """Count the tokens as `dataset_stats` does, for a model and data.

    Raises:
        InputError: the data, the model or the template is invalid.
    """
    tokenizer = load_tokenizer(model)
    data = with_date(data, tokenizer, utc_today())
    split = read_split(_without_heldout(data))
    encoded = encode_examples(split.train, data, tokenizer)
    return compute_data_stats(encoded, data, split.reading)


def source_uses(data: DataConfig) -> list[SourceUses]:
    """Return how often the examples of each of several sources are used in an epoch."""
    if not data.sources:
        return []
    ids: list[list[str]] = [[] for _ in data.sources]
    for example in read_split(_without_heldout(data)).train:
        ids[example.source].append(example.id)
    return [
        SourceUses(path=source.path, num_used=len(set(found)), num_uses=len(found))
        for source, found in zip(data.sources, ids, strict=True)
    ]


def _without_heldout(data: DataConfig) -> DataConfig:
    return data.model_copy(update={"heldout_examples": 0, "train_examples": None})
