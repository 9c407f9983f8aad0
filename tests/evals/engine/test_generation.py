"""Batched generation: shared prefixes, finished rows, stop strings, memory."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from evals.engine.batching import ignore_progress
from evals.engine.generation import generate
from evals.engine.loaded_model import LoadedModel
from trainers.data.examples import Example, Message
from trainers.foundation.errors import TrainingError

QUESTIONS = ["Sort!", "What is the capital of France?", "Join it", "Return 2", "a", "b c d e f"]


@pytest.fixture
def prompts(load, tiny_path: Path) -> list[list[int]]:
    """Chat prompts with the same system message."""
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    system = Message(role="system", content="You answer in one word and never in two of them.")
    return [
        loaded.template.encode_prompt(
            Example(
                id=str(number),
                messages=(
                    system,
                    Message(role="user", content=question),
                    Message(role="assistant", content=""),
                ),
            )
        )
        for number, question in enumerate(QUESTIONS)
    ]


@contextmanager
def forward_shapes(loaded: LoadedModel) -> Iterator[list[tuple[int, int]]]:
    """Record the rows and tokens of each forward pass."""
    shapes: list[tuple[int, int]] = []
    hook = loaded.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))
    )
    yield shapes
    hook.remove()


def generate_separately(
    loaded: LoadedModel, prompts: list[list[int]], **settings: object
) -> list[list[int]]:
    """Return the output of each prompt in a batch of one."""
    return [
        generate(loaded, [prompt], batch_size=1, on_progress=ignore_progress, **settings)[0]  # type: ignore[arg-type]
        for prompt in prompts
    ]


def test_a_shared_prefix_is_processed_once_and_changes_no_output(
    load, tiny_path: Path, prompts: list[list[int]]
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    with forward_shapes(loaded) as shapes:
        batched = generate(
            loaded, prompts, max_new_tokens=12, batch_size=6, on_progress=ignore_progress
        )
    assert batched == generate_separately(loaded, prompts, max_new_tokens=12)
    assert shapes[0] == (1, _shared_prefix_length(prompts))
    assert shapes[0][1] > 24


def test_finished_rows_leave_the_batch(load, tiny_path: Path, prompts: list[list[int]]) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    whole = generate_separately(loaded, prompts, max_new_tokens=12)
    # Make the third token of two outputs, and the sixth of another, end tokens.
    loaded.eos_token_ids.extend({whole[0][2], whole[1][2], whole[2][5]})
    expected = generate_separately(loaded, prompts, max_new_tokens=12)
    assert len({len(output) for output in expected}) > 2
    reported: list[tuple[int, list[int]]] = []
    counts: list[tuple[int, int]] = []
    with forward_shapes(loaded) as shapes:
        found = generate(
            loaded,
            prompts,
            max_new_tokens=12,
            batch_size=6,
            on_progress=lambda done, total: counts.append((done, total)),
            on_output=lambda number, output: reported.append((number, output)),
        )
    assert found == expected
    assert sorted(reported) == list(enumerate(expected))
    assert counts == [(done, 6) for done in range(1, 7)]
    rows = [num_rows for num_rows, num_tokens in shapes if num_tokens == 1]
    assert rows == sorted(rows, reverse=True)
    # One forward pass for each token of a row except the last; at most one row in four is finished.
    needed = [sum(len(output) >= step for output in expected) for step in range(1, 12)]
    assert len(rows) <= 11
    assert all(processed * 0.75 <= used for processed, used in zip(rows, needed, strict=False))


def test_an_output_ends_with_a_stop_string(load, tiny_path: Path, prompts: list[list[int]]) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    whole = generate_separately(loaded, prompts, max_new_tokens=12)
    # The text of two tokens; alone it may be tokenised differently.
    stop = loaded.decode(whole[3][4:6])
    found = generate(
        loaded,
        prompts,
        max_new_tokens=12,
        batch_size=6,
        on_progress=ignore_progress,
        stop_strings=[stop],
    )
    assert found[3] == whole[3][:6]
    for output, long in zip(found, whole, strict=True):
        assert output == long[: len(output)]
        assert (stop in loaded.decode(output)) == (stop in loaded.decode(long))


def test_all_rows_may_finish_at_once_before_any_stop_string(
    load, tiny_path: Path, prompts: list[list[int]]
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    [whole] = generate_separately(loaded, prompts[:1], max_new_tokens=4)
    loaded.eos_token_ids.append(whole[0])
    found = generate(
        loaded,
        prompts[:1] * 2,
        max_new_tokens=4,
        batch_size=2,
        on_progress=ignore_progress,
        stop_strings=["never"],
    )
    assert found == [[], []]


def test_a_batch_that_runs_out_of_memory_is_halved_and_reported_once(
    load, tiny_path: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    expected = generate_separately(loaded, prompts, max_new_tokens=4)
    whole = loaded.model.generate

    def generate_few(input_ids_BT: torch.Tensor, **settings: object) -> object:
        if len(input_ids_BT) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return whole(input_ids_BT, **settings)

    monkeypatch.setattr(loaded.model, "generate", generate_few)
    counts: list[int] = []
    found = generate(
        loaded,
        prompts,
        max_new_tokens=4,
        batch_size=6,
        on_progress=lambda done, total: counts.append(done),
    )
    assert found == expected
    assert counts == [1, 2, 3, 4, 5, 6]


def test_every_end_token_of_the_generation_config_ends_an_output(
    load, taught_path: Path, tmp_path: Path, facts: list[Example]
) -> None:
    path = tmp_path / "ends"
    shutil.copytree(taught_path, path)
    # Make the first token of "math.sqrt" an end token.
    first = load(path).tokenizer("math.sqrt", add_special_tokens=False)["input_ids"][0]
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [first, 1]}))
    loaded: LoadedModel = load(path)
    outputs = generate(
        loaded,
        [loaded.template.encode_prompt(fact) for fact in facts[:2]],
        max_new_tokens=16,
        batch_size=2,
        on_progress=ignore_progress,
    )
    assert outputs[0] == []
    assert loaded.decode(outputs[1]) == "os.path.join"


def test_a_model_that_has_diverged_is_reported_instead_of_its_first_token(
    load, tiny_path: Path
) -> None:
    loaded = load(tiny_path)
    loaded.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="log-probabilities are not finite") as raised:
        generate(loaded, [[5, 6, 7]], max_new_tokens=2, batch_size=1, on_progress=ignore_progress)
    assert raised.value.kind == "divergence"


def _shared_prefix_length(sequences: list[list[int]]) -> int:
    columns = enumerate(zip(*sequences, strict=False))
    return next(number for number, column in columns if len(set(column)) > 1)
