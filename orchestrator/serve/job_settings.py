"""From a request to the settings of `plw train`, and to the spec of an auto search.

The settings name the model by its public name and the data by the id of its file. To
reproduce a job, replace these two by paths.
"""

from typing import Any

from evals.config import HELDOUT_EVALUATIONS
from orchestrator.serve.config import ModelEntry, ServeConfig
from orchestrator.serve.create_request import AUTO, CreateRequest
from orchestrator.serve.errors import invalid_value
from orchestrator.serve.records import AutoSearch
from orchestrator.spec.sweep_spec import SweepSpec
from trainers.config import TrainConfig

# A fifth of the examples at most is held out from a search.
_HELDOUT_SHARE = 5
SWEEP_NAME = "auto"


def job_settings(
    request: CreateRequest, entry: ModelEntry, config: ServeConfig, num_examples: int
) -> tuple[dict[str, Any], dict[str, Any], AutoSearch | None]:
    """Return the resolved hyperparameters, the settings, and the search of an auto job.

    The weight is `auto` in the hyperparameters and the default in the settings until the search has
    ended.

    Raises:
        ApiError: the batch is larger than the file.
    """
    given = request.hyperparameters
    base = entry.train_config(request.training_file)
    if given["batch_size"] != AUTO and given["batch_size"] > num_examples:
        raise invalid_value(
            "batch_size",
            f"'batch_size' is {given['batch_size']}, but the training file has {num_examples}"
            " examples.",
        )
    batch_size = (
        min(base.batch.global_batch_size, num_examples)
        if given["batch_size"] == AUTO
        else given["batch_size"]
    )
    multiplier = 1.0 if given["learning_rate_multiplier"] == AUTO else (
        given["learning_rate_multiplier"]
    )  # fmt: skip
    weight = given["prompt_loss_weight"]
    is_auto = weight == AUTO
    if weight is None or is_auto:
        weight = config.auto.default if is_auto else 0.0
    settings = base.model_dump(mode="json")
    settings["model"]["path"] = request.model
    settings["batch"]["global_batch_size"] = batch_size
    settings["batch"]["micro_batch_size"] = min(base.batch.micro_batch_size, batch_size)
    settings["optimizer"]["learning_rate"] *= multiplier
    if given["n_epochs"] != AUTO:
        settings["schedule"] |= {"epochs": float(given["n_epochs"]), "steps": None}
    settings["loss"]["prompt_loss_weight"] = weight
    settings["seed"] = request.seed
    TrainConfig.model_validate(settings)
    epochs = settings["schedule"]["epochs"]
    hyperparameters = {
        "n_epochs": int(epochs) if epochs is not None and epochs == int(epochs) else AUTO,
        "batch_size": batch_size,
        "learning_rate_multiplier": multiplier,
        "prompt_loss_weight": AUTO if is_auto else weight,
    }
    auto = None
    if is_auto:
        auto = _auto_search(request, settings, entry, config, num_examples)
    return hyperparameters, settings, auto


def _auto_search(
    request: CreateRequest,
    settings: dict[str, Any],
    entry: ModelEntry,
    config: ServeConfig,
    num_examples: int,
) -> AutoSearch:
    auto = config.auto
    heldout = max(1, min(auto.heldout_examples, num_examples // _HELDOUT_SHARE))
    seeds = [request.seed + index for index in range(auto.seeds)]
    spec = {
        **settings,
        "data": {**settings["data"], "heldout_examples": heldout},
        "name": SWEEP_NAME,
        "search": {
            "method": "grid",
            "space": {"loss.prompt_loss_weight": auto.weights},
            "seeds": seeds,
            "budget": auto.budget.model_dump(mode="json"),
        },
        "evals": {
            "heldout": {"examples": heldout},
            **dict.fromkeys(name for name in HELDOUT_EVALUATIONS if name != "heldout"),
        },
        "resources": entry.resources.model_dump(mode="json"),
    }
    SweepSpec.model_validate(spec)
    return AutoSearch(weights=auto.weights, seeds=seeds, default=auto.default, spec=spec)
