"""Files of a trial that was not trained, as its ranks would write them."""

import json

from evals.results.scores import Score, ScoreCard
from orchestrator.record.folder import SweepFolder
from orchestrator.trials.job_channel import Job
from trainers.foundation.files import write_json, write_text

METRICS = {"step": 1, "total_steps": 1, "time": 1.8e9, "completion_loss": 2.0, "num_tokens": 64,
           "tokens_per_second": 640.0, "loss": 2.0, "prompt_loss": 3.0}  # fmt: skip
RESULT = {"model_path": "none", "steps": 1, "num_tokens": 64, "seconds": 0.0,
          "tokens_per_second": 640.0, "completion_loss": 2.0, "prompt_loss": 3.0, "loss_rsd": 0.1,
          "distance": 0.1, "distance_by_layer": {}}  # fmt: skip


def finish_job(folder: SweepFolder, job: Job) -> None:
    """Write the files of a finished job; the metrics are kept if the trial has some."""
    place = folder.baseline(job.key) if job.kind == "base" else folder.trial(job.key)
    if job.kind == "trial":
        if not folder.metrics(job.key).exists():
            write_text(folder.metrics(job.key), json.dumps(METRICS) + "\n")
        write_json(place / "train.json", {"config": job.settings, "result": RESULT})
    score = Score(name="heldout_completion_loss", group=None, value=2.0, standard_error=0.1,
                  ci_low=1.8, ci_high=2.2, num_items=8, higher_is_better=False,
                  unit="nats per token", interval_method="bootstrap")  # fmt: skip
    card = ScoreCard(model_path=job.model_path, scores=[score], signature={}, seconds=0.0)
    write_json(place / "scores.json", card.model_dump(mode="json"))
