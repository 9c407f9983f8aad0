"""Score a checkpoint: results, files, signature, progress and invalid checkpoints."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import sacrebleu
import torch
import transformers
from safetensors.torch import load_file, save_file

from evals.config import DistractorChoiceConfig, EvalConfig, GenerationConfig, HeldoutConfig
from evals.heldout.examples import examples_sha256
from evals.results.scores import ScoreCard
from evals.run import score_model
from trainers.data.examples import Example, pair
from trainers.foundation.errors import InputError
from trainers.foundation.files import read_json

CONFIG = EvalConfig(
    heldout=HeldoutConfig(examples=4),
    heldout_choice=DistractorChoiceConfig(examples=3, choices=3),
    heldout_exact_match=GenerationConfig(examples=4, max_new_tokens=16),
    heldout_chrf=GenerationConfig(examples=2, max_new_tokens=48, invert=True),
    batch_size=2,
)


def _score(path: Path, facts: list[Example], out_dir: Path, **changes) -> ScoreCard:
    arguments = {
        "model_path": path,
        "examples": facts,
        "template": "plain",
        "max_length": 128,
        "config": CONFIG,
        "out_dir": out_dir,
    }
    return score_model(**(arguments | changes))


def test_a_model_trained_on_the_answers_has_perfect_scores(
    taught_path: Path, facts: list[Example], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    card = _score(taught_path, facts, tmp_path / "out")
    values = {score.name: score.value for score in card.scores}
    assert list(values) == [
        "heldout_completion_loss",
        "heldout_prompt_loss",
        "heldout_completion_bits_per_byte",
        "heldout_prompt_bits_per_byte",
        "heldout_user_loss",
        "heldout_template_loss",
        "heldout.choice",
        "heldout.exact_match",
        "heldout.chrf",
    ]
    assert values["heldout_completion_loss"] < 0.05
    assert values["heldout_prompt_loss"] > 1
    assert values["heldout.choice"] == 1
    assert values["heldout.exact_match"] == 1
    assert values["heldout.chrf"] == 100
    assert capfd.readouterr() == ("", "")


def test_continuous_batches_give_the_same_scores_under_another_signature(
    taught_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    names = {"heldout": None, "heldout_choice": None, "batch_size": "auto"}
    cards = [
        _score(
            taught_path,
            facts,
            tmp_path / engine,
            config=CONFIG.model_copy(update={**names, "engine": engine}),
        )
        for engine in ("padded", "continuous")
    ]
    assert cards[0].scores == cards[1].scores
    assert "engine" not in cards[0].signature
    assert cards[1].signature == {**cards[0].signature, "engine": "continuous"}


def test_scores_and_samples_are_saved(
    taught_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    card = _score(taught_path, facts, tmp_path)
    assert ScoreCard.model_validate(read_json(tmp_path / "scores.json")) == card
    names = ["parts", "samples.jsonl", "scores.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    samples = [
        json.loads(line)
        for line in (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [sample["measure"] for sample in samples] == (
        ["heldout"] * 4
        + ["heldout.choice"] * 3
        + ["heldout.exact_match"] * 4
        + ["heldout.chrf"] * 2
    )
    for sample in samples:
        assert list(sample)[:6] == ["measure", "id", "prompt", "target", "output", "value"]
    assert [sample["id"] for sample in samples[:4]] == ["f:1", "f:2", "f:3", "f:4"]


def test_the_signature_contains_what_scores_depend_on(
    taught_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    signature = _score(taught_path, facts, tmp_path).signature
    assert signature == {
        "version": 1,
        "measures": {
            "heldout": {"examples": 4},
            "heldout_choice": {"examples": 3, "choices": 3},
            "heldout_exact_match": {"examples": 4, "max_new_tokens": 16, "invert": False},
            "heldout_chrf": {"examples": 2, "max_new_tokens": 48, "invert": True},
        },
        "seed": 0,
        "batch_size": 2,
        "template": "plain",
        "template_sha256": None,
        "template_args": {},
        "max_length": 128,
        "truncation_side": "left",
        "items_sha256": examples_sha256(facts),
        "num_examples": 4,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "dtype": "bfloat16" if torch.cuda.is_available() else "float32",
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "sacrebleu": sacrebleu.__version__,
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}",
    }


def test_the_signature_changes_with_the_template_file(
    taught_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    template = tmp_path / "prompt.jinja"
    hashes = []
    for text in ("Q: {{ prompt }}\nA:", "Question: {{ prompt }}\nA:"):
        template.write_text(text)
        card = _score(taught_path, facts, tmp_path / "out", template=str(template))
        hashes.append(card.signature["template_sha256"])
    chat = _score(taught_path, facts, tmp_path / "out", template="chat")
    assert len({*hashes, chat.signature["template_sha256"], None}) == 4


def test_scoring_again_gives_the_same_scores(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    first = _score(tiny_path, facts, tmp_path / "1")
    second = _score(tiny_path, facts, tmp_path / "2")
    assert first.scores == second.scores
    assert (tmp_path / "1/samples.jsonl").read_text() == (tmp_path / "2/samples.jsonl").read_text()


def test_an_evaluation_that_is_null_is_skipped(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    only = EvalConfig(
        heldout=HeldoutConfig(examples=2),
        heldout_choice=None,
        heldout_exact_match=None,
        heldout_chrf=None,
    )
    card = _score(tiny_path, facts[:1], tmp_path, config=only)
    assert {score.unit for score in card.scores} == {"nats per token", "bits per byte"}
    assert card.scores[0].num_items == 1
    assert "chrf" not in card.signature


def test_progress_is_reported_by_evaluation(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    reports: list[tuple[str, int, int]] = []
    _score(
        tiny_path, facts, tmp_path,
        on_progress=lambda name, done, total: reports.append((name, done, total)),
    )  # fmt: skip
    totals = {"heldout": 4, "heldout.choice": 3, "heldout.exact_match": 4, "heldout.chrf": 2}
    assert list(dict.fromkeys(name for name, _, _ in reports)) == list(totals)
    for evaluation, total in totals.items():
        done = [done for name, done, _ in reports if name == evaluation]
        assert {of for name, _, of in reports if name == evaluation} == {total}
        # Before the first batch and after each batch of at most two items, without repetition.
        assert done == sorted(set(done))
        assert (done[0], done[-1]) == (0, total)
        assert max(b - a for a, b in pairwise(done)) <= 2


def test_a_failed_run_leaves_no_scores_behind(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    _score(tiny_path, facts, tmp_path)
    with pytest.raises(InputError):
        _score(tiny_path / "nowhere", facts, tmp_path)
    assert not (tmp_path / "scores.json").exists()


def test_a_missing_checkpoint_is_reported_with_its_path(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"model folder does not exist: .*nowhere; give a folder"):
        _score(tiny_path / "nowhere", facts, tmp_path)


def test_a_checkpoint_without_all_weights_is_rejected(
    tiny_path: Path, facts: list[Example], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lacking"
    shutil.copytree(tiny_path, path)
    weights = load_file(path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"checkpoint .*lacking: the files lack weights.*layers\.1\.mlp\.up_proj"
    ):
        _score(path, facts, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_with_weights_of_another_shape_is_rejected(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    path = tmp_path / "narrow"
    shutil.copytree(tiny_path, path)
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1].clone()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"another shape than in the config: model\.norm\.weight"):
        _score(path, facts, tmp_path / "out")


def test_a_damaged_checkpoint_is_reported_with_its_path(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    path = tmp_path / "broken"
    shutil.copytree(tiny_path, path)
    (path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(
        InputError, match=r"checkpoint .*broken cannot be loaded: a safetensors file is damaged"
    ):
        _score(path, facts, tmp_path / "out")


def test_pickled_weights_are_rejected(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    path = tmp_path / "pickled"
    shutil.copytree(tiny_path, path)
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"checkpoint .*pickled cannot be loaded: .*safetensors"):
        _score(path, facts, tmp_path / "out")


def test_invalid_examples_are_reported_before_the_model_is_loaded(tmp_path: Path) -> None:
    same = [pair(f"s:{n}", prompt=str(n), completion="yes") for n in range(8)]
    with pytest.raises(InputError, match=r"evals\.heldout_choice needs 3 distinct completions"):
        _score(tmp_path / "nowhere", same, tmp_path)
    with pytest.raises(InputError, match="no held-out examples"):
        _score(tmp_path / "nowhere", [], tmp_path)


def test_threads_and_logging_are_restored(
    tiny_path: Path, facts: list[Example], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    during: list[int] = []
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.enable_progress_bar()
    request.addfinalizer(transformers.utils.logging.disable_progress_bar)
    _score(
        tiny_path, facts, tmp_path, num_threads=2,
        on_progress=lambda *_: during.append(torch.get_num_threads()),
    )  # fmt: skip
    assert set(during) == {2}
    assert torch.get_num_threads() == 1
    assert transformers.utils.logging.get_verbosity() == verbosity
    assert transformers.utils.logging.is_progress_bar_enabled()
