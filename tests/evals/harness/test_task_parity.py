"""EngineLM against lm-eval's HFLM, item by item."""

from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.engine.batching import ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.engine.loglikelihood import Continuation
from evals.harness.lm import EngineLM
from evals.harness.loading import load_tasks
from evals.harness.paper_suite import BENCHMARKS
from evals.harness.planning import plan_tasks
from evals.harness.registry import suppress_lm_eval_output
from evals.results.response_log import ResponseLog
from tests.evals.benchmark_files import write_data_root

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hflm(tiny_path: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    with suppress_lm_eval_output():
        return HFLM(pretrained=str(tiny_path), dtype="float32", batch_size=4, device="cpu")


def _engine_lm(
    loaded: LoadedModel, batch_size: int | None = None, apply_template: bool = False
) -> Any:
    return EngineLM(
        loaded, ResponseLog(None, {}), batch_size=batch_size, apply_template=apply_template, seed=0,
        on_progress=ignore_progress,
    )  # fmt: skip


def _evaluate(model: Any, name: str, num_fewshot: int, folder: Path) -> dict[str, Any]:
    from lm_eval import evaluator

    none = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))
    config = EvalConfig.model_validate(
        none
        | {"tasks": [{"name": name, "num_fewshot": num_fewshot}], "data_root": str(folder / "data")}
    )
    (planned,) = plan_tasks(config)
    with suppress_lm_eval_output():
        tasks = load_tasks(planned, folder / "definitions").tasks
        return evaluator.evaluate(model, {"tasks": tasks}, bootstrap_iters=0)


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_item_has_the_same_scores_and_outputs(
    name: str, num_fewshot: int, hflm: Any, tiny: LoadedModel, tmp_path: Path
) -> None:
    write_data_root(tmp_path / "data")
    expected = _evaluate(hflm, name, num_fewshot, tmp_path)
    found = _evaluate(_engine_lm(tiny), name, num_fewshot, tmp_path)
    for item, expected_item in zip(found["samples"][name], expected["samples"][name], strict=True):
        assert item["arguments"] == expected_item["arguments"]
        for (response,), (true,) in zip(item["resps"], expected_item["resps"], strict=True):
            if isinstance(true, str):
                assert response == true
            else:
                assert response[0] == pytest.approx(true[0], abs=1e-3)
                assert response[1] == true[1]
    for metric, value in expected["results"][name].items():
        if isinstance(value, float):
            assert found["results"][name][metric] == pytest.approx(value, abs=1e-3)


class _Request:
    """The part of lm-eval's Instance that a model uses."""

    task_name = None

    def __init__(self, doc_id: int, *args: Any) -> None:
        self.doc_id, self.args = doc_id, args


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_unusual_requests_have_the_same_scores(
    batch_size: int | None, hflm: Any, tiny: LoadedModel
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
    expected = hflm.loglikelihood(requests, disable_tqdm=True)
    found = _engine_lm(tiny, batch_size).loglikelihood(requests)
    for (value, is_greedy), (true, true_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(true, abs=1e-3)
        assert is_greedy == true_greedy


def test_long_texts_are_scored_in_the_same_windows(hflm: Any, tiny: LoadedModel) -> None:
    requests = [_Request(n, text) for n, text in enumerate(["short", "of many words " * 100])]
    expected = hflm.loglikelihood_rolling(requests, disable_tqdm=True)
    found = _engine_lm(tiny).loglikelihood_rolling(requests)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("until", [[], ["e"], ["\n", "the"]])
def test_outputs_end_at_the_same_stop_strings(
    until: list[str], hflm: Any, tiny: LoadedModel
) -> None:
    prompts = ["Return", "Join two paths", "What is the capital of France?", "x " * 400]
    settings = {"until": until, "max_gen_toks": 24, "do_sample": False}
    requests = [_Request(n, prompt, settings) for n, prompt in enumerate(prompts)]
    assert _engine_lm(tiny).generate_until(requests) == hflm.generate_until(
        requests, disable_tqdm=True
    )


def test_in_a_template_a_continuation_is_tokenised_separately_as_in_training(
    tiny: LoadedModel,
) -> None:
    (pair,) = _engine_lm(tiny, apply_template=True)._encode_pairs([("What?\n\n", "Paris.")])
    assert pair == Continuation(
        context_ids=tiny.tokenizer("What?\n\n")["input_ids"],
        ids=tiny.template.encode_completion("Paris.")[:-1],
    )
