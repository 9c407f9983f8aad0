"""Custom benchmarks: lm-eval's task file and the settings of a score."""

from pathlib import Path

from evals.config import EvalConfig
from evals.harness.planning import plan_tasks
from tests.evals.benchmark_files import write_lines

# The module of the functions when the first scores were recorded.
RECORDED_MODULE = "evals.own_benchmarks"


def test_settings_of_a_score_contain_the_first_module_name_of_its_functions(
    tmp_path: Path,
) -> None:
    # A saved score is reused only if its settings are equal, so they must not change with the code.
    write_lines(tmp_path / "own.jsonl", [{"prompt": "a", "target": "b"}])
    custom = {"name": "own", "path": str(tmp_path / "own.jsonl"), "kind": "chrf"}
    [planned] = plan_tasks(EvalConfig.model_validate({"benchmarks": [custom]}))
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
