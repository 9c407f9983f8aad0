"""A benchmark of one's own as a task: what lm-eval reads, and what the settings of scores hold."""

from pathlib import Path

from evals.config import EvalConfig
from evals.harness.tasks import planned_tasks
from tests.evals.benchmark_files import write_lines

# Where the functions were when the first scores were recorded.
RECORDED_MODULE = "evals.own_benchmarks"


def test_settings_of_a_score_hold_the_first_name_of_the_functions_that_scored_it(
    tmp_path: Path,
) -> None:
    # A kept score counts only under equal settings, so they must not follow the code's layout.
    write_lines(tmp_path / "own.jsonl", [{"prompt": "a", "target": "b"}])
    own = {"name": "own", "path": str(tmp_path / "own.jsonl"), "kind": "chrf"}
    [planned] = planned_tasks(EvalConfig.model_validate({"benchmarks": [own]}))
    assert planned.settings["definition"] == {
        "task": "own",
        "dataset_path": "json",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "prompt",
        "metadata": {"version": 1},
        "output_type": "generate_until",
        "doc_to_target": f"{RECORDED_MODULE}.first_target",
        "process_results": f"{RECORDED_MODULE}.chrf",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 64, "do_sample": False},
        "metric_list": [
            {
                "metric": "chrf",
                "aggregation": f"{RECORDED_MODULE}.corpus_chrf",
                "higher_is_better": True,
            }
        ],
    }
    assert planned.definition is not None
    assert planned.definition["process_results"] == "evals.harness.custom_tasks.chrf"
