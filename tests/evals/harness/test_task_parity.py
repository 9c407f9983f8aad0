"""Our numbers against those of lm-eval's own class for transformers, item by item."""

from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.engine.loading import LoadedModel
from evals.engine.loglikelihood import Continuation
from evals.harness.lm import BenchmarkModel
from evals.harness.paper_suite import BENCHMARKS
from evals.harness.registry import quiet_lm_eval
from evals.harness.tasks import load_task, planned_tasks
from evals.results.response_log import Answers
from tests.evals.benchmark_files import write_data_root
from tests.evals.reference import no_progress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def theirs(tiny_path: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    with quiet_lm_eval():
        return HFLM(pretrained=str(tiny_path), dtype="float32", batch_size=4, device="cpu")


def _ours(loaded: LoadedModel, batch_size: int | None = None, in_template: bool = False) -> Any:
    return BenchmarkModel(
        loaded, Answers(None, {}), batch_size=batch_size, in_template=in_template, seed=0,
        on_progress=no_progress,
    )  # fmt: skip


def _evaluated(model: Any, name: str, num_fewshot: int, folder: Path) -> dict[str, Any]:
    from lm_eval import evaluator

    none = dict.fromkeys(("heldout", "multiple_choice", "short_generation", "long_generation"))
    config = EvalConfig.model_validate(
        none
        | {"tasks": [{"name": name, "num_fewshot": num_fewshot}], "data_root": str(folder / "data")}
    )
    (planned,) = planned_tasks(config)
    with quiet_lm_eval():
        task = load_task(planned, folder / "definitions")
        return evaluator.evaluate(model, {"tasks": {name: task}}, bootstrap_iters=0)


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_item_has_the_same_numbers_and_texts(
    name: str, num_fewshot: int, theirs: Any, tiny: LoadedModel, tmp_path: Path
) -> None:
    write_data_root(tmp_path / "data")
    expected = _evaluated(theirs, name, num_fewshot, tmp_path)
    found = _evaluated(_ours(tiny), name, num_fewshot, tmp_path)
    for ours, other in zip(found["samples"][name], expected["samples"][name], strict=True):
        assert ours["arguments"] == other["arguments"]
        for (answer,), (true,) in zip(ours["resps"], other["resps"], strict=True):
            if isinstance(true, str):
                assert answer == true
            else:
                assert answer[0] == pytest.approx(true[0], abs=1e-3)
                assert answer[1] == true[1]
    for metric, value in expected["results"][name].items():
        if isinstance(value, float):
            assert found["results"][name][metric] == pytest.approx(value, abs=1e-3)


class _Request:
    """As much of lm-eval's Instance as a model looks at."""

    task_name = None

    def __init__(self, doc_id: int, *args: Any) -> None:
        self.doc_id, self.args = doc_id, args


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_odd_requests_are_answered_alike(
    batch_size: int | None, theirs: Any, tiny: LoadedModel
) -> None:
    long = "a b c d " * 300
    pairs = [
        ("", "only this"),
        ("Ends in space ", "next"),
        ("x\n\n", " y"),
        (long, "tail"),
        ("é", "ö"),
    ]
    requests = [_Request(n // 2, *pair) for n, pair in enumerate(pairs)]
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    found = _ours(tiny, batch_size).loglikelihood(requests)
    for (value, is_greedy), (true, true_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(true, abs=1e-3)
        assert is_greedy == true_greedy


def test_long_texts_are_scored_in_the_same_windows(theirs: Any, tiny: LoadedModel) -> None:
    requests = [_Request(n, text) for n, text in enumerate(["short", "of many words " * 100])]
    expected = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    found = _ours(tiny).loglikelihood_rolling(requests)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("until", [[], ["e"], ["\n", "the"]])
def test_outputs_end_at_the_same_stops(until: list[str], theirs: Any, tiny: LoadedModel) -> None:
    prompts = ["Return", "Join two paths", "What is the capital of France?", "x " * 400]
    settings = {"until": until, "max_gen_toks": 24, "do_sample": False}
    requests = [_Request(n, prompt, settings) for n, prompt in enumerate(prompts)]
    assert _ours(tiny).generate_until(requests) == theirs.generate_until(
        requests, disable_tqdm=True
    )


def test_in_a_template_a_continuation_is_tokenised_on_its_own_as_in_training(
    tiny: LoadedModel,
) -> None:
    (pair,) = _ours(tiny, in_template=True)._encode_pairs([("What?\n\n", "Paris.")])
    assert pair == Continuation(
        context_ids=tiny.tokenizer("What?\n\n")["input_ids"],
        ids=tiny.template.encode_completion("Paris.")[:-1],
    )
