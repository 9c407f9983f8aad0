"""A checkpoint, loaded once for all measures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from evals.engine.token_logprobs import TokenScorer
from trainers.data.roles import Template
from trainers.foundation.errors import InputError, Problem

# Its functions are not annotated.
transformers_logging: Any = logging


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer and the template its prompts are worded in.

    `stop_ids` are the tokens that end a completion: the one that training puts there and those
    that the checkpoint's generation settings name. `max_length` bounds the tokens of an example.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template
    scorer: TokenScorer
    max_length: int
    stop_ids: list[int]

    @property
    def device(self) -> torch.device:
        """Where the model is and its inputs belong."""
        device: torch.device = self.model.device
        return device

    @property
    def max_positions(self) -> int | None:
        """Tokens the model has positions for; None if its configuration does not say."""
        value = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(value) if value else None

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that stand for no text, such as those that begin and end a turn."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(self.tokenizer.all_special_ids) | {id for id, t in added if t.special}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens and all."""
        text = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def generation_settings(**settings: Any) -> GenerationConfig:
    """Settings of generate(); what is not given is neither the checkpoint's nor a sampler's."""
    make: Any = GenerationConfig
    made: GenerationConfig = make(**settings)
    return made


def load_model(model_path: str | Path, *, template: str, max_length: int) -> LoadedModel:
    """The checkpoint at `model_path`: float32 on a CPU, bfloat16 on a GPU where there is one.

    Only safetensors are read and no code that comes with the model is run.

    Raises:
        InputError: there is no such checkpoint, it lacks weights or its tokenizer, or the
            template does not fit it.
    """
    _refuse_missing(model_path)
    on_gpu = torch.cuda.is_available()
    loader: Any = AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
        model, loading = loader.from_pretrained(
            model_path,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise InputError(
            Problem(
                message=f"cannot load a model from {model_path}: {first_line}",
                fix=_FOLDER,
            )
        ) from error
    _refuse_incomplete(model_path, loading)
    model = model.to("cuda" if on_gpu else "cpu").eval()
    named = model.generation_config.eos_token_id
    # Empty, because generate() merges a checkpoint's own settings (temperature, penalties,
    # minimum lengths) into whatever it is given.
    model.generation_config = generation_settings()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        template=Template(template, tokenizer),
        scorer=TokenScorer(model),
        max_length=max_length,
        stop_ids=_stop_ids(tokenizer, named),
    )


@contextmanager
def quiet(num_threads: int | None = None) -> Iterator[None]:
    """Keep transformers from writing to the terminal, and run torch on `num_threads` threads.

    What its warnings would say about a checkpoint is checked by `load_model` instead.
    """
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    threads = torch.get_num_threads()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        torch.set_num_threads(threads)


_FOLDER = "give a folder with config.json, model.safetensors and the tokenizer's files"


def _refuse_missing(model_path: str | Path) -> None:
    # transformers takes a path that does not exist for the name of a repository.
    is_path = isinstance(model_path, Path) or model_path.startswith(("/", "."))
    if is_path and not Path(model_path).is_dir():
        raise InputError(Problem(message=f"there is no model folder {model_path}", fix=_FOLDER))


def _refuse_incomplete(model_path: str | Path, loading: dict[str, Any]) -> None:
    # transformers fills in random numbers for weights that it does not find.
    bad = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if bad:
        shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise InputError(
            Problem(
                message=f"{len(bad)} weights are missing or misshapen in {model_path}: {shown}",
                fix="write the checkpoint again; a LoRA adapter must be merged first",
            )
        )


def _stop_ids(tokenizer: PreTrainedTokenizerBase, named: int | list[int] | None) -> list[int]:
    ids = [named] if isinstance(named, int) else named or []
    eos = tokenizer.eos_token_id
    return [eos, *(id for id in ids if id != eos)]
