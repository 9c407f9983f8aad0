"""Load a checkpoint for evaluation."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evals.engine.continuous_batches import (
    ContinuousBatches,
    check_continuous,
    continuous_problem,
)
from evals.engine.continuous_or_padded import ContinuousOrPadded
from evals.engine.helper_ranks import HelperRanks
from evals.engine.loaded_model import GenerationEngine, LoadedModel, make_generation_config
from evals.engine.padded_batches import PaddedBatches
from evals.engine.shared_generation import SharedGeneration
from evals.engine.token_logprobs import TokenScorer
from evals.engine_config import Engine, VllmConfig
from trainers.data.template import Template
from trainers.data_config import TruncationSide
from trainers.engine.ranks import uses_cuda
from trainers.foundation.errors import InputError, Problem
from trainers.models.compatibility import weight_problems
from trainers.models.load_errors import cannot_load

_CHECKPOINT_FIX = "give a folder with config.json, model.safetensors and the tokenizer's files"


def load_model(
    model_path: str | Path,
    *,
    template: str,
    max_length: int,
    template_args: Mapping[str, Any] | None = None,
    truncation_side: TruncationSide = "left",
    engine: Engine = "auto",
    vllm: VllmConfig | None = None,
    helpers: HelperRanks | None = None,
) -> LoadedModel:
    """Load the checkpoint at `model_path`: in bfloat16 on a GPU, or else in float32 on the CPU.

    A rank that trains on the CPU also scores there, even if the machine's GPUs are visible to it.
    Only safetensors are read, and no code from the checkpoint is run. The caller closes the engine.

    Args:
        engine: how text is generated; auto: continuous batches on a GPU, if they can run the model
            and do not fail, or else padded batches.
        vllm: settings of the engine vllm; None: the defaults.
        helpers: other ranks that load the same model and share its work; a server of vLLM
            generates alone.

    Raises:
        InputError: the checkpoint does not exist, lacks weights or a tokenizer, or does not fit the
            template or the engine.
    """
    _check_model_folder(model_path)
    on_gpu = uses_cuda()
    loader: Any = AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
        model, loading_info = loader.from_pretrained(
            model_path,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # The loading info lists mismatches by name.
        )
    except Exception as error:
        raise cannot_load(str(model_path), error, name="checkpoint") from error
    problems = weight_problems(str(model_path), loading_info, name="checkpoint")
    if problems:
        raise InputError(problems)
    model = model.to("cuda" if on_gpu else "cpu").eval()
    eos_token_id = model.generation_config.eos_token_id
    # Empty, because generate() merges the checkpoint's settings (temperature, penalties, minimum
    # lengths) into every config that is passed to it.
    model.generation_config = make_generation_config()
    rendered = Template(template, tokenizer, args=template_args, truncation_side=truncation_side)
    made = _make_engine(engine, model, model_path, vllm or VllmConfig())
    if helpers is not None and engine != "vllm":
        made = SharedGeneration(made, helpers)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        template=rendered,
        scorer=TokenScorer(model, helpers),
        engine=made,
        max_length=max_length,
        eos_token_ids=_eos_token_ids(rendered, eos_token_id),
        special_ids=_special_ids(tokenizer),
    )


def template_and_commit(model_path: str | Path, *, like: Template) -> tuple[Template, str | None]:
    """Return a template as `like` with the tokenizer of a checkpoint, and the checkpoint's commit.

    No weights are read. The commit is None for a local folder.

    Raises:
        InputError: the checkpoint does not exist, or does not fit the template.
    """
    _check_model_folder(model_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
    except Exception as error:
        raise cannot_load(str(model_path), error, name="checkpoint") from error
    template = Template(like.name, tokenizer, args=like.args, truncation_side=like.truncation_side)
    return template, getattr(config, "_commit_hash", None)


@contextmanager
def torch_threads(num_threads: int | None) -> Iterator[None]:
    """Run torch on `num_threads` threads; None leaves the number unchanged."""
    previous = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def _check_model_folder(model_path: str | Path) -> None:
    # transformers treats a path that does not exist as the name of a hub repository.
    is_path = isinstance(model_path, Path) or model_path.startswith(("/", "."))
    if is_path and not Path(model_path).is_dir():
        raise InputError(
            Problem(message=f"model folder does not exist: {model_path}", fix=_CHECKPOINT_FIX)
        )


def _make_engine(
    engine: Engine, model: PreTrainedModel, model_path: str | Path, vllm: VllmConfig
) -> GenerationEngine:
    if engine == "vllm":
        # Its HTTP client is needed nowhere else.
        from evals.engine.vllm_server import VllmServer

        return VllmServer(vllm, model_path)
    if engine == "continuous":
        check_continuous(model)
        return ContinuousBatches()
    if engine == "auto" and model.device.type == "cuda" and continuous_problem(model) is None:
        return ContinuousOrPadded()
    return PaddedBatches()


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(tokenizer.all_special_ids) | {id for id, token in added if token.special}


def _eos_token_ids(template: Template, configured: int | list[int] | None) -> list[int]:
    ids = [configured] if isinstance(configured, int) else configured or []
    return list(dict.fromkeys([template.tokenizer.eos_token_id, template.end_token_id, *ids]))
