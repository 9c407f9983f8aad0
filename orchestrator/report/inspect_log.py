"""Write the samples of a scored model as logs that Inspect's viewer shows.

Source: the JSON form of `EvalLog`, version 2, in inspect_ai.log. inspect-ai itself is not needed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evals.results.paired_samples import ScoredModel, category_of, measure_of
from evals.results.result_store import safe_file_name
from evals.results.scores import Score
from trainers.foundation.files import write_text

# Fields of a sample with a place of their own in a log.
_SHOWN = ("measure", "id", "prompt", "target", "output", "value")


def write_inspect_logs(model: ScoredModel, out_dir: Path) -> list[Path]:
    """Write one log for each measure of `model` to `out_dir`, and return their paths.

    The time in a name is that of the scores, so that writing again replaces the logs.
    """
    changed = (model.folder / "scores.json").stat().st_mtime
    created = datetime.fromtimestamp(changed, UTC)
    by_measure: dict[str, list[Mapping[str, Any]]] = {}
    for sample in model.samples:
        by_measure.setdefault(sample["measure"], []).append(sample)
    scores: dict[str, list[Score]] = {}
    for score in (*model.card.scores, *model.card.secondary):
        scores.setdefault(measure_of(score, by_measure) or "", []).append(score)
    paths = []
    for measure, samples in by_measure.items():
        # The viewer's id of a log: the same model and measure have the same one.
        task_id = hashlib.sha256(f"{model.folder} {measure}".encode()).hexdigest()[:22]
        log = _log(model, measure, samples, scores.get(measure, []), created, task_id)
        name = f"{created:%Y-%m-%dT%H-%M-%S+00-00}_{safe_file_name(measure)}_{task_id}.json"
        write_text(out_dir / name, json.dumps(log, ensure_ascii=False, indent=1) + "\n")
        paths.append(out_dir / name)
    return paths


def _log(
    model: ScoredModel,
    measure: str,
    samples: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    created: datetime,
    task_id: str,
) -> dict[str, Any]:
    time = created.isoformat()
    metrics = {score.name: {"name": score.name, "value": score.value} for score in scores}
    ids = [str(sample["id"]) for sample in samples]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": task_id,
            "run_id": task_id,
            "created": time,
            "task": measure,
            "task_id": task_id,
            "dataset": {"name": measure, "samples": len(samples), "sample_ids": ids},
            "model": model.card.model_path,
            "config": {},
        },
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [{"name": measure, "scorer": measure, "metrics": metrics}],
        },
        "stats": {"started_at": time, "completed_at": time},
        "samples": [_sample(sample, measure, model.card.model_path) for sample in samples],
    }


def _sample(sample: Mapping[str, Any], measure: str, model: str) -> dict[str, Any]:
    output = _text(sample["output"])
    message = {"role": "assistant", "content": output}
    category = category_of(dict(sample))
    return {
        "id": str(sample["id"]),
        "epoch": 1,
        "input": _text(sample["prompt"]),
        "target": _text(sample["target"]),
        "messages": [{"role": "user", "content": _text(sample["prompt"])}, message],
        "output": {"model": model, "choices": [{"message": message, "stop_reason": "stop"}]},
        # A sample without a value, such as a pair without a verdict, has no score.
        "scores": {}
        if sample["value"] is None
        else {measure: {"value": sample["value"], "answer": output}},
        "metadata": {
            **({} if category is None else {"category": category}),
            **{name: value for name, value in sample.items() if name not in _SHOWN},
        },
    }


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
