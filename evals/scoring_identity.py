"""The identity of a scoring run: scores with equal identities are comparable.

No model is needed, because a sweep determines before training which scores it can reuse.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from evals.config import JUDGED_BENCHMARKS, EvalConfig
from evals.harness.paper_suite import data_files, file_digests
from evals.harness.planning import TASKS_VERSION
from evals.heldout.examples import examples_sha256
from trainers.data.examples import Example
from trainers.data.template_files import template_file
from trainers.data_config import TruncationSide
from trainers.foundation.files import sha256_file
from trainers.foundation.renamed_settings import with_current_names

_JUDGED_SECTIONS = (*JUDGED_BENCHMARKS, "judged", "judge")
# Increase it when the scores of the same model and items may change.
SCORING_VERSION = 1


def scoring_identity(
    examples: Sequence[Example],
    config: EvalConfig,
    *,
    template: str,
    max_length: int,
    template_args: Mapping[str, Any] | None = None,
    truncation_side: TruncationSide = "left",
) -> dict[str, Any]:
    """Return everything that scores depend on, other than the model and the machine.

    A model's chat template counts as part of the model.
    """
    file = template_file(template)
    return {
        "version": SCORING_VERSION,
        "measures": config.scoring_settings(),
        "seed": config.seed,
        "template": template,
        "template_sha256": sha256_file(file) if file else None,
        "template_args": dict(template_args or {}),
        "max_length": max_length,
        "truncation_side": truncation_side,
        "items_sha256": examples_sha256(examples),
        "num_examples": len(examples),
        **_tasks_identity(config),
    }


def is_same_scoring(signature: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Return whether recorded scores with this signature have the requested identity.

    Evaluation settings are compared after validation. A setting that was added with a default since
    the scores were recorded makes no difference.
    """
    # Records of earlier versions have no template arguments.
    recorded = {"template_args": {}, **signature, "measures": _validated(signature.get("measures"))}
    requested = {**identity, "measures": _validated(identity["measures"])}
    return all(recorded.get(key) == value for key, value in requested.items())


def _validated(measures: Any) -> Any:
    """Return recorded evaluation settings as (config, judged sections), or unchanged if invalid."""
    if not isinstance(measures, dict):
        return measures
    measures = with_current_names({"evals": measures})["evals"]
    judged = {name: measures[name] for name in _JUDGED_SECTIONS if name in measures}
    others = {name: value for name, value in measures.items() if name not in _JUDGED_SECTIONS}
    try:
        return EvalConfig.model_validate(others), judged
    except ValidationError:
        return measures


def _tasks_identity(config: EvalConfig) -> dict[str, Any]:
    if not config.tasks and not config.benchmarks:
        return {}
    files = file_digests(data_files(config))
    return {"tasks_version": TASKS_VERSION, **({"benchmark_files": files} if files else {})}
