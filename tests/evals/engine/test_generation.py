import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from evals.engine.generation import generate
from evals.engine.loading import LoadedModel
from tests.evals.reference import no_progress
from trainers.data.examples import Example, Message

QUESTIONS = ["Sort!", "What is the capital of France?", "Join it", "Return 2", "a", "b c d e f"]


@pytest.fixture
def prompts(load, tiny_path: Path) -> list[list[int]]:
    """What is asked under the same system message."""
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
def shapes_read(loaded: LoadedModel) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of each pass through the model."""
    shapes: list[tuple[int, int]] = []
    hook = loaded.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))
    )
    yield shapes
    hook.remove()


def alone(loaded: LoadedModel, prompts: list[list[int]], **settings: object) -> list[list[int]]:
    """What each prompt is answered by itself, with nothing beside it."""
    return [
        generate(loaded, [prompt], batch_size=1, on_progress=no_progress, **settings)[0]  # type: ignore[arg-type]
        for prompt in prompts
    ]


def test_a_shared_beginning_is_read_once_and_changes_no_output(
    load, tiny_path: Path, prompts: list[list[int]]
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    with shapes_read(loaded) as shapes:
        together = generate(
            loaded, prompts, max_new_tokens=12, batch_size=6, on_progress=no_progress
        )
    assert together == alone(loaded, prompts, max_new_tokens=12)
    assert shapes[0] == (1, _num_common(prompts))
    assert shapes[0][1] > 24


def test_rows_that_have_ended_are_not_read_on(
    load, tiny_path: Path, prompts: list[list[int]]
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    whole = alone(loaded, prompts, max_new_tokens=12)
    # As if what two of them write third, and another sixth, were ends of a turn.
    loaded.stop_ids.extend({whole[0][2], whole[1][2], whole[2][5]})
    expected = alone(loaded, prompts, max_new_tokens=12)
    assert len({len(output) for output in expected}) > 2
    told: list[tuple[int, list[int]]] = []
    counts: list[tuple[int, int]] = []
    with shapes_read(loaded) as shapes:
        found = generate(
            loaded,
            prompts,
            max_new_tokens=12,
            batch_size=6,
            on_progress=lambda done, total: counts.append((done, total)),
            on_output=lambda number, output: told.append((number, output)),
        )
    assert found == expected
    assert sorted(told) == list(enumerate(expected))
    assert counts == [(done, 6) for done in range(1, 7)]
    rows = [num_rows for num_rows, num_tokens in shapes if num_tokens == 1]
    assert rows == sorted(rows, reverse=True)
    # A pass for each token but the last of a row, and at most one ended row in four.
    needed = [sum(len(output) >= step for output in expected) for step in range(1, 12)]
    assert len(rows) <= 11
    assert all(read * 0.75 <= used for read, used in zip(rows, needed, strict=False))


def test_an_output_may_end_with_a_text(load, tiny_path: Path, prompts: list[list[int]]) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    whole = alone(loaded, prompts, max_new_tokens=12)
    # Two tokens, which the model need not have written apart from what stands around them.
    stop = loaded.decode(whole[3][4:6])
    found = generate(
        loaded,
        prompts,
        max_new_tokens=12,
        batch_size=6,
        on_progress=no_progress,
        stop_texts=[stop],
    )
    assert found[3] == whole[3][:6]
    for output, long in zip(found, whole, strict=True):
        assert output == long[: len(output)]
        assert (stop in loaded.decode(output)) == (stop in loaded.decode(long))


def test_rows_may_all_end_at_once_before_any_text_that_ends_them(
    load, tiny_path: Path, prompts: list[list[int]]
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    [whole] = alone(loaded, prompts[:1], max_new_tokens=4)
    loaded.stop_ids.append(whole[0])
    found = generate(
        loaded,
        prompts[:1] * 2,
        max_new_tokens=4,
        batch_size=2,
        on_progress=no_progress,
        stop_texts=["never"],
    )
    assert found == [[], []]


def test_a_batch_without_room_is_halved_and_told_once(
    load, tiny_path: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    expected = alone(loaded, prompts, max_new_tokens=4)
    whole = loaded.model.generate

    def generate_few(input_ids_BT: torch.Tensor, **settings: object) -> object:
        if len(input_ids_BT) > 3:
            raise torch.OutOfMemoryError("no room")
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


def test_every_end_token_that_the_checkpoint_names_ends_an_output(
    load, taught_path: Path, tmp_path: Path, facts: list[Example]
) -> None:
    path = tmp_path / "ends"
    shutil.copytree(taught_path, path)
    # As if the first token of "math.sqrt" ended a turn.
    first = load(path).tokenizer("math.sqrt", add_special_tokens=False)["input_ids"][0]
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [first, 1]}))
    loaded: LoadedModel = load(path)
    outputs = generate(
        loaded,
        [loaded.template.encode_prompt(fact) for fact in facts[:2]],
        max_new_tokens=16,
        batch_size=2,
        on_progress=no_progress,
    )
    assert outputs[0] == []
    assert loaded.decode(outputs[1]) == "os.path.join"


def _num_common(sequences: list[list[int]]) -> int:
    columns = enumerate(zip(*sequences, strict=False))
    return next(number for number, column in columns if len(set(column)) > 1)
