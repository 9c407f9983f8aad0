"""Settings are read from YAML; every problem has its file, line, value and fix."""

from pathlib import Path

import pytest

from trainers.config import TrainConfig
from trainers.foundation.errors import InputError
from trainers.foundation.settings_file import load_config, read_yaml
from trainers.loss_config import RoleWeights

VALID = """\
model:
  path: models/tiny
data:
  path: train.jsonl
loss:
  prompt_loss_weight: 0.1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    """Return the problems as lines, with file names without their folder."""
    with pytest.raises(InputError) as caught:
        load_config(TrainConfig, path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


def test_a_valid_file_gives_settings_and_defaults(tmp_path: Path) -> None:
    config = load_config(TrainConfig, written(tmp_path, VALID))
    assert config.model.path == "models/tiny"
    assert config.loss.prompt_loss_weight == 0.1
    assert config.loss.normalization == "weights"
    assert config.schedule.epochs == 3


def test_settings_survive_a_round_trip_through_json(tmp_path: Path) -> None:
    config = load_config(TrainConfig, written(tmp_path, VALID))
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_error_for_an_unknown_key_has_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    path = written(tmp_path, VALID.replace("prompt_loss_weight", "prompt_los_weight"))
    assert problems_of(path) == [
        "train.yaml:6: unknown key loss.prompt_los_weight; did you mean prompt_loss_weight?"
    ]


def test_error_for_an_unknown_key_lists_the_valid_keys_if_none_is_similar(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "checkpoint:\n  xyz: 1\n")
    assert problems_of(path) == [
        "train.yaml:8: unknown key checkpoint.xyz; valid here: every_minutes, every_steps, keep"
    ]


def test_error_for_an_unknown_section_names_the_nearest_section(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "optimiser:\n  learning_rate: 1e-4\n")
    assert problems_of(path) == ["train.yaml:7: unknown key optimiser; did you mean optimizer?"]


def test_a_weight_above_one_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, VALID.replace("0.1", "1.5"))
    assert problems_of(path) == [
        "train.yaml:6: loss.prompt_loss_weight: input should be less than or equal to 1, got 1.5;"
        " edit loss.prompt_loss_weight"
    ]


def test_a_list_with_too_few_values_names_the_list(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "profile_steps: [4]\n")
    assert problems_of(path) == [
        "train.yaml:7: profile_steps needs 2 values, got [4]; edit profile_steps"
    ]


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "data:\n  path: train.jsonl\n  max_length: 4\nloss:\n  normalization: mean\nseeed: 1\n",
    )
    assert problems_of(path) == [
        "train.yaml: model is required; add model",
        "train.yaml:3: data.max_length: input should be greater than or equal to 8, got 4;"
        " edit data.max_length",
        "train.yaml:5: loss.normalization: input should be 'weights', 'nonzero', 'completion',"
        " 'tokens' or 'examples', got 'mean'; edit loss.normalization",
        "train.yaml:6: unknown key seeed; did you mean seed?",
    ]


def test_a_rule_over_several_settings_names_their_section(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "schedule:\n  epochs: 1\n  steps: 5\n")
    assert problems_of(path) == [
        "train.yaml:7: schedule: set exactly one of schedule.epochs and schedule.steps, got both;"
        " set the other one to null"
    ]


ROLE_WEIGHTS = """\
  role_weights:
    user: 0
"""


def test_role_weights_are_a_section_of_the_loss(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + ROLE_WEIGHTS)
    config = load_config(TrainConfig, path, ("loss.role_weights.system=0.5",))
    assert config.loss.role_weights == RoleWeights(system=0.5, user=0.0)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "loss.role_weights.user=2",
            "--set: loss.role_weights.user: input should be less than or equal to 1, got 2;"
            " edit loss.role_weights.user",
        ),
        (
            "loss.role_weights.sytem=1",
            "--set: unknown key loss.role_weights.sytem; did you mean system?",
        ),
    ],
)
def test_error_names_an_invalid_role_weight_by_its_path(
    override: str, problem: str, tmp_path: Path
) -> None:
    assert problems_of(written(tmp_path, VALID + ROLE_WEIGHTS), (override,)) == [problem]


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss.prompt_loss_weight=0", "loss.role_weights.completion=0"),
        (
            "loss.role_weights="
            "{completion: 0, system: 0, user: 0, template: 0, tool: 0, history: 0}",
            "loss.prompt_loss_weight=1",
        ),
    ],
)
def test_all_role_weights_zero_is_rejected(overrides: tuple[str, ...], tmp_path: Path) -> None:
    assert problems_of(written(tmp_path, VALID), overrides) == [
        "train.yaml:5: loss: the weight of at least one role must be above 0, but"
        " loss.role_weights.completion, that of thinking and those of all prompt roles are 0"
    ]


def test_one_role_with_a_weight_is_enough(tmp_path: Path) -> None:
    config = load_config(
        TrainConfig,
        written(tmp_path, VALID),
        (
            "loss.prompt_loss_weight=0",
            "loss.role_weights.completion=0",
            "loss.role_weights.user=0.1",
        ),
    )
    assert config.loss.role_weights.completion == 0


def test_an_empty_section_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "schedule:\n")
    assert problems_of(path) == [
        "train.yaml:7: schedule: must be a group of settings, got None; give schedule settings,"
        " or omit it"
    ]


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "train.yaml") == [
        "train.yaml: no such file; correct the path, or create a spec with plw init"
    ]


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n"])
def test_a_file_without_a_mapping_is_rejected(tmp_path: Path, text: str) -> None:
    assert problems_of(written(tmp_path, text)) == [
        "train.yaml: must be a mapping of settings; start from a file in examples/"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1,\nb: 2\n", "train.yaml:3: not valid YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", "train.yaml:2: not valid YAML: found character '\\t'"),
        ("a: \0\n", "train.yaml: not valid YAML: unacceptable character #x0000"),
        ("a: 1\n---\nb: 2\n", "train.yaml:2: not valid YAML: but found another document"),
    ],
)
def test_error_for_invalid_yaml_has_the_line(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in problems_of(written(tmp_path, text))[0]


def test_a_file_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    assert problems_of(path) == ["train.yaml: cannot be read: not UTF-8 text; give a YAML file"]


def test_error_for_a_duplicate_key_has_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "model:\n  path: other\n")
    assert problems_of(path)[0].startswith('train.yaml:7: found duplicate key "model"')


def test_data_given_as_a_spec_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(caught.value) == (
        f"{path}:2: not valid YAML: expected '<document start>', but found ('{{',); give a"
        f" spec; plw data stats {path} --spec my.yaml writes one"
    )


def test_overrides_replace_settings_of_the_file(tmp_path: Path) -> None:
    config = load_config(
        TrainConfig,
        written(tmp_path, VALID),
        ("loss.prompt_loss_weight=0.5", "optimizer.learning_rate=1e-4", "seed=7"),
    )
    assert config.loss.prompt_loss_weight == 0.5
    assert config.optimizer.learning_rate == 1e-4
    assert config.seed == 7


def test_an_override_can_unset(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "schedule:\n  epochs: 1\n")
    config = load_config(TrainConfig, path, ("schedule.epochs=null", "schedule.steps=5"))
    assert (config.schedule.epochs, config.schedule.steps) == (None, 5)


def test_error_for_an_override_names_the_option_instead_of_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, VALID)
    assert problems_of(path, ("loss.prompt_loss_weight=1.5",)) == [
        "--set: loss.prompt_loss_weight: input should be less than or equal to 1, got 1.5;"
        " edit loss.prompt_loss_weight"
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "seed",
            "an override must have the form key.path=value, got 'seed'; for example"
            " optimizer.learning_rate=1e-4",
        ),
        (
            "=1",
            "an override must have the form key.path=value, got '=1'; for example"
            " optimizer.learning_rate=1e-4",
        ),
        ("seed=[1", "an override's value must be YAML, got 'seed=[1'; quote it"),
        ("model.path.x=1", "path in model.path.x is not a group of settings"),
        ("los.x=1", "--set: unknown key los; did you mean loss?"),
        (
            "learning_rate=1e-5",
            "--set: unknown key learning_rate; did you mean optimizer.learning_rate?",
        ),
        (
            "lerning_rate=1e-5",
            "--set: unknown key lerning_rate; did you mean optimizer.learning_rate?",
        ),
        ("path=m", "--set: unknown key path; did you mean model.path or data.path?"),
        # Not profile_steps, although it is similar.
        ("steps=5", "--set: unknown key steps; did you mean schedule.steps?"),
        (
            "model.learning_rate=1e-5",
            "--set: unknown key model.learning_rate; did you mean optimizer.learning_rate?",
        ),
    ],
)
def test_an_override_that_cannot_be_applied(tmp_path: Path, override: str, problem: str) -> None:
    assert problems_of(written(tmp_path, VALID), (override,)) == [problem]


@pytest.mark.parametrize(
    "override",
    [
        "model.dropout=1",
        "model.attention=fast",
        "data.max_length=7",
        "data.heldout_examples=-1",
        "data.train_examples=0",
        "data.seed=-1",
        "data.completion_turns=first",
        "data.too_long=cut",
        "loss.prompt_loss_weight=-0.1",
        "loss.prompt_loss_weight=true",
        "loss.prompt_loss_weight=.nan",
        "loss.label_smoothing=1",
        "loss.role_weights.completion=1.1",
        "optimizer.learning_rate=0",
        "optimizer.weight_decay=-1",
        "optimizer.l2_sp=-1",
        "optimizer.beta1=1",
        "optimizer.beta2=-0.1",
        "optimizer.epsilon=0",
        "optimizer.max_grad_norm=.inf",
        "schedule.kind=step",
        "schedule.warmup_ratio=1",
        "schedule.epochs=0",
        "schedule.steps=0",
        "batch.global_batch_size=0",
        "batch.micro_batch_size=1.5",
        "batch.packing=2",
        "batch.max_tokens=0",
        "deepspeed.zero_stage=4",
        "deepspeed.precision=float16",
        "deepspeed.offload_optimizer=1",
        "deepspeed.override=[]",
        "lora.rank=0",
        "lora.alpha=0",
        "lora.dropout=1",
        "lora.target_modules=[]",
        "checkpoint.every_steps=0",
        "checkpoint.keep=0",
        "log_every_steps=0",
        "log_distance_every_steps=0",
        "seed=-1",
    ],
)
def test_error_names_the_field_of_a_value_out_of_range(tmp_path: Path, override: str) -> None:
    dotted, _, value = override.partition("=")
    with pytest.raises(InputError) as caught:
        load_config(TrainConfig, written(tmp_path, VALID), (override,))
    [problem] = caught.value.problems
    assert dotted in str(problem)
    shown = {".nan": "nan", ".inf": "inf", "true": "True"}.get(value, value)
    assert f"got {shown}" in str(problem) or f"got '{shown}'" in str(problem)
