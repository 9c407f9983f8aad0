"""Commands on one thing that is already there: a model, a data set, a sweep's folder."""

import os
from pathlib import Path

from evals.config import EvalConfig
from evals.scores import ScoreCard
from orchestrator.record import SweepFolder, check_records
from orchestrator.spec import load_spec
from orchestrator.tracking_uri import check_port, is_web, ui_command
from trainers.config import DataConfig, ModelConfig
from trainers.data import encode_all, read_split
from trainers.errors import InputError, Problem
from trainers.models import load_tokenizer, resolve_model_path
from trainers.records import read_examples
from trainers.stats import DataStats, data_stats


def open_sweep(path: Path) -> SweepFolder:
    """The sweep in a folder, all of whose records can be read.

    Raises:
        InputError: there is none, or records of it are damaged.
    """
    folder = SweepFolder(path.expanduser().absolute())
    if not folder.sweep_json.exists():
        raise InputError(
            Problem(
                message="no sweep here: sweep.json is missing",
                where=str(path),
                fix="give the output_dir of a sweep, such as runs/demo",
            )
        )
    check_records(folder)
    return folder


def stats_of(config: DataConfig, *, model: str) -> DataStats:
    """Counts and tokens by role of all examples of a data set under a model's tokenizer.

    Raises:
        InputError: data, model or template do not fit.
    """
    tokenizer = load_tokenizer(ModelConfig(path=model))
    examples = read_examples(config.path, split=config.split)
    return data_stats(encode_all(examples, config, tokenizer), config)


def evaluate_model(
    model: str,
    data_path: str | None,
    *,
    spec_path: Path | None,
    template: str | None,
    max_length: int | None,
    output_dir: Path,
) -> ScoreCard:
    """Score a model on examples, or on the held-out part of a spec's data.

    A spec also gives the measures, the template and the length, as far as they are not given.

    Raises:
        InputError: neither examples nor a spec were given, or model, data or template do not fit.
    """
    from evals.run import score_model

    if spec_path is not None:
        spec = load_spec(spec_path)
        evals, data = spec.evals, spec.data
    elif data_path:
        evals, data = EvalConfig(), DataConfig(path=data_path)
    else:
        raise InputError(
            Problem(message="nothing to score on", fix="give --data, or a sweep spec as --config")
        )
    examples = read_examples(data_path) if data_path else read_split(data).heldout
    return score_model(
        model_path=resolve_model_path(model),
        examples=examples,
        template=data.template if template is None else template,
        max_length=data.max_length if max_length is None else max_length,
        config=evals,
        out_dir=output_dir,
        num_threads=os.cpu_count(),
    )


def ui_of(path: Path, port: int) -> tuple[list[str], str]:
    """The command that serves MLflow for a sweep, if none serves it yet, and the page to open.

    Raises:
        InputError: there is no sweep in `path`, it was never tracked, or `port` is taken.
    """
    folder = open_sweep(path)
    record = folder.read_tracking()
    if record is None:
        raise InputError(
            Problem(message="the sweep was not tracked yet", where=str(path), fix="run it first")
        )
    page = f"#/experiments/{record.experiment_id}"
    if is_web(record.uri):
        return [], f"{record.uri.rstrip('/')}/{page}"
    check_port(port)
    return ui_command(record.uri, port=port), f"http://127.0.0.1:{port}/{page}"
