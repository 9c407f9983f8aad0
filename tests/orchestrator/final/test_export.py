"""The setting of a sweep or spec for TRL, axolotl and ms-swift."""

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import card, trial, write_sweep
from tests.trainers.tiny_runs import settings, whole_settings
from trainers.config import DataConfig, TrainConfig
from trainers.data.roles import Role
from trainers.data.tokenize import encode_all, read_split
from trainers.loss import role_weights
from trainers.models.loading import load_tokenizer

STARTS = {"trl": "t.py", "axolotl": "a.yaml", "ms-swift": "s.yaml"}


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(settings(folder, **changes), file)
    return path


def export(folder: Path, framework: str, *options: object, **changes: Any) -> Path:
    """The file to start from."""
    out = folder / "out" / STARTS[framework]
    plw("export", write_config(folder, **changes), "--to", framework, "-o", out, *options)
    return out


def yaml_1_1(path: Path) -> Any:
    """The content as the frameworks read it."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)  # type: ignore[assignment]
    return yaml.load(path.read_text())


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_settings(path: Path) -> dict[str, Any]:
    """What a script gives to SFTConfig, without running it."""
    [value] = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SETTINGS"
    ]
    found: dict[str, Any] = ast.literal_eval(value)
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("framework", "name"), [("trl", "t"), ("axolotl", "a")])
@pytest.mark.parametrize("weight", [0, 1])
def test_labels_are_the_tokens_that_count(
    tmp_path: Path, framework: str, name: str, weight: int
) -> None:
    out = export(tmp_path, framework, "--plw", weight)
    written = rows(out.with_name(f"{name}.train.jsonl"))
    config = TrainConfig.model_validate(settings(tmp_path))
    expected = encode_all(read_split(config.data).train, config.data, load_tokenizer(config.model))
    assert len(written) == 32
    for row, example in zip(written, expected, strict=True):
        assert row["input_ids"] == list(example.input_ids)
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        counted = [weight == 1 or role == Role.COMPLETION for role in example.roles]
        labels = [i if c else -100 for i, c in zip(row["input_ids"], counted, strict=True)]
        assert row["labels"] == labels


def test_axolotl_gets_tokens_and_the_recipe(tmp_path: Path) -> None:
    out = export(tmp_path, "axolotl", "--plw", 0, "--workers", 7, lora={"rank": 4, "alpha": 8.0})
    content = yaml_1_1(out)
    data = str(out.with_name("a.train.jsonl"))
    assert content["datasets"] == [{"path": data, "ds_type": "json", "type": None}]
    assert content["base_model"] == str(tmp_path / "model")
    # A global batch of 7 on 7 GPUs.
    assert (content["micro_batch_size"], content["gradient_accumulation_steps"]) == (1, 1)
    assert (content["max_steps"], content["warmup_steps"]) == (6, 1)
    assert content["learning_rate"] == 0.01
    assert content["adam_epsilon"] == 1e-8
    assert (content["adapter"], content["lora_r"], content["lora_target_linear"]) == (
        *("lora", 4),
        True,
    )
    assert "divides by the tokens of each GPU" in out.read_text()


def test_all_frameworks_get_the_same_recipe(tmp_path: Path) -> None:
    options = ("--plw", 0, "--set", "optimizer.weight_decay=0.05")
    trl = module_settings(export(tmp_path, "trl", *options))
    swift = yaml_1_1(export(tmp_path, "ms-swift", *options))
    axolotl = yaml_1_1(export(tmp_path, "axolotl", *options))
    recipe = {
        "gradient_accumulation_steps": 7,
        "max_steps": 6,
        "learning_rate": 0.01,
        "weight_decay": 0.05,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "warmup_steps": 1,
        "gradient_checkpointing": False,
        "seed": 0,
    }
    for settings_of in (trl, swift, axolotl):
        assert {name: settings_of[name] for name in recipe} == recipe
        assert "num_train_epochs" not in settings_of
    assert trl["per_device_train_batch_size"] == axolotl["micro_batch_size"] == 1
    assert trl["lr_scheduler_type"] == axolotl["lr_scheduler"] == "cosine"
    assert trl["label_smoothing_factor"] == swift["label_smoothing_factor"] == 0
    assert "label_smoothing_factor" not in axolotl


def test_fractions_are_refused_where_only_masks_are_known(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for framework, name in (("trl", "TRL"), ("axolotl", "axolotl")):
        output = refused("export", config, "--to", framework, "-o", tmp_path / "x")
        assert output.startswith(
            f"error: {name} cannot express these token weights"
            " (user 0.1, template 0.1, completion 1): "
        )
        assert "export to ms-swift" in output
    assert not (tmp_path / "x").exists()


def test_weights_of_roles_are_exported_as_labels(tmp_path: Path) -> None:
    loss = {"prompt_loss_weight": 0.0, "role_weights": {"user": 1.0}}
    out = export(tmp_path, "trl", loss=loss)
    first = rows(out.with_name("t.train.jsonl"))[0]
    ignored = [i for i, label in zip(first["input_ids"], first["labels"], strict=True) if label < 0]
    tokenizer = load_tokenizer(TrainConfig.model_validate(settings(tmp_path)).model)
    assert tokenizer.decode(ignored) == "\n\n"


@pytest.mark.parametrize(("weight", "strategy"), [(0, "default"), (1, "all")])
def test_swift_has_strategies_for_both_ends(tmp_path: Path, weight: int, strategy: str) -> None:
    out = export(tmp_path, "ms-swift", "--plw", weight)
    content = yaml_1_1(out)
    assert content["loss_scale"] == strategy
    assert "external_plugins" not in content
    [first, *_] = rows(out.with_name("s.train.jsonl"))
    user, assistant = first["messages"]
    assert user["content"].startswith("Add ")
    assert user["content"].endswith("\n\n")
    assert assistant["role"] == "assistant"


def test_swift_gets_a_plugin_for_weights_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(tmp_path, "ms-swift", "--plw", 0.1)
    content = yaml_1_1(out)
    plugin = out.with_name("s_plugin.py")
    assert content["external_plugins"] == [str(plugin)]
    scale, known = swift_like(monkeypatch)
    module_at(plugin)
    weigh = known[content["loss_scale"]]()
    assert isinstance(weigh, scale)
    assert not weigh.is_binary
    contexts = [[1], "the prompt", "the answer", [2]]
    kinds = ["other", "other", "response", "suffix"]
    assert weigh(contexts, kinds, []) == (contexts, [0.1, 0.1, 1.0, 1.0])


def swift_like(monkeypatch: pytest.MonkeyPatch) -> tuple[type, dict[str, Any]]:
    """As much of ms-swift 4.5 as a plugin touches."""
    scale = type("LossScale", (), {"is_binary": True})
    known: dict[str, Any] = {}
    kinds = type("ContextType", (), {"RESPONSE": "response", "SUFFIX": "suffix", "OTHER": "other"})
    modules = {
        "swift": {},
        "swift.loss_scale": {"LossScale": scale, "loss_scale_map": known},
        "swift.template": {"ContextType": kinds},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return scale, known


def test_what_divides_the_loss_is_said(tmp_path: Path) -> None:
    def notes(loss: dict[str, Any], *options: object) -> str:
        config = write_config(tmp_path, loss=loss)
        out = tmp_path / "out" / "n.yaml"
        arguments = ("export", config, "--to", "ms-swift", "-o", out, "--force", *options)
        return str(plw_json(*arguments)["notes"][0])

    same = "which is what loss.normalization weights does here"
    assert notes({}, "--plw", 0).endswith(same)
    assert notes({}, "--plw", 1).endswith(same)
    assert notes({"normalization": "nonzero"}, "--plw", 0.1).endswith("nonzero does here")
    config = TrainConfig.model_validate(settings(tmp_path))
    counts = encode_all(
        read_split(config.data).train, config.data, load_tokenizer(config.model)
    ).target_counts()
    prompt = counts[Role.USER] + counts[Role.TEMPLATE]
    completion = counts[Role.COMPLETION]
    ratio = (completion + 0.1 * prompt) / (completion + prompt)
    assert f"{ratio:.3g} times ours" in notes({}, "--plw", 0.1)
    ratio = completion / (completion + prompt)
    assert f"{ratio:.3g} times ours" in notes({"normalization": "completion"}, "--plw", 1)


def test_what_no_framework_has_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    options = ("export", config, "--plw", 0, "-o", tmp_path / "x", "--to")
    penalty = ("--set", "optimizer.distance_penalty=0.1")
    for framework in STARTS:
        assert "has no optimizer.distance_penalty" in refused(*options, framework, *penalty)
    smoothing = ("--set", "loss.label_smoothing=0.1")
    assert "axolotl has no setting for loss.label_smoothing" in refused(
        *options, "axolotl", *smoothing
    )
    roles = ("--set", "loss.role_weights.user=0.5")
    assert "loss.role_weights of system, user and template must be equal" in refused(
        *options, "ms-swift", *roles
    )
    assert "--workers must divide batch.global_batch_size 7, got 2" in refused(
        *options, "trl", "--workers", 2
    )


def test_a_sweep_exports_its_best_weight(tmp_path: Path) -> None:
    trials = [
        trial(weight).model_copy(update={"settings": whole_settings(tmp_path, weight)})
        for weight in (0.0, 0.01, 0.1, 0.242, 0.5, 1.0)
    ]
    scores = [(value, 0.1, 0.9) for value in (0.6, 0.52, 0.42, 0.38, 0.35, 0.30)]
    cards = {
        one.id: card({"multiple_choice_accuracy": score})
        for one, score in zip(trials, scores, strict=True)
    }
    folder = write_sweep(tmp_path / "s", trials, cards)
    found = plw_json("export", folder.root, "--to", "trl", "-o", tmp_path / "x.py")
    assert found["prompt_loss_weight"] == 0
    assert found["reason"].startswith("Multiple choice: falls from 0: best PLW is 0")
    assert found["files"] == [str(tmp_path / "x.py"), str(tmp_path / "x.train.jsonl")]


def test_a_spec_that_searches_the_weight_needs_one(tmp_path: Path) -> None:
    spec = write_config(tmp_path, search={"space": {"loss.prompt_loss_weight": [0, 1]}})
    options = ("export", spec, "--to", "trl", "-o", tmp_path / "x.py")
    assert "the spec searches loss.prompt_loss_weight, so it names none; give --plw" in refused(
        *options
    )
    plw(*options, "--plw", 1)


def test_no_file_is_replaced_unasked(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "x.train.jsonl").write_text("mine")
    options = ("export", config, "--plw", 0, "--to", "trl", "-o", tmp_path / "x.py")
    assert "there is such a file already" in refused(*options)
    assert not (tmp_path / "x.py").exists()
    plw(*options, "--force")
    assert len(rows(tmp_path / "x.train.jsonl")) == 32


def test_scripts_parse_whatever_names_hold(tmp_path: Path) -> None:
    folder = tmp_path / 'a"""b\\n'
    folder.mkdir()
    config = write_config(folder)
    out = folder / "x.py"
    plw("export", config, "--plw", 0, "--to", "trl", "-o", out)
    ast.parse(out.read_text())
    plw("export", config, "--plw", 0.5, "--to", "ms-swift", "-o", folder / "y.yaml")
    ast.parse((folder / "y_plugin.py").read_text())
    assert yaml_1_1(folder / "y.yaml")["model"] == str(folder / "model")


# TRL comes with the extra `bench`, which `make test-full` installs.
@pytest.mark.full
def test_trl_takes_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl

    monkeypatch.chdir(tmp_path)
    out = export(tmp_path, "trl", "--plw", 0, lora={"rank": 4, "alpha": 8.0})
    script = module_at(out)
    made = trl.SFTConfig(**script.SETTINGS, use_cpu=True, report_to=[])
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (1, 7)
    assert (made.max_steps, made.warmup_steps, made.learning_rate) == (6, 1, 0.01)
    assert script.LORA["r"] == 4


@pytest.mark.full
@pytest.mark.parametrize("weight", [0, 1])
def test_the_script_trains_with_the_loss_that_it_was_exported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: int
) -> None:
    import trl

    monkeypatch.chdir(tmp_path)
    # One step over all examples, in whatever order: its loss is that of the untrained model.
    out = export(
        tmp_path,
        "trl",
        "--plw",
        weight,
        schedule={"steps": 1},
        batch={"global_batch_size": 32, "micro_batch_size": 4},
    )
    script = module_at(out)
    script.SETTINGS |= {"use_cpu": True, "report_to": [], "disable_tqdm": True}
    losses: list[float] = []

    class Keep(trl.SFTTrainer):  # type: ignore[misc]
        def log(self, logs: dict[str, float], *rest: Any) -> None:
            losses.extend(value for name, value in logs.items() if name == "loss")
            super().log(logs, *rest)

    script.SFTTrainer = Keep  # type: ignore[attr-defined]
    script.main()
    assert losses[0] == pytest.approx(untrained_loss(tmp_path, weight), rel=1e-4)


def untrained_loss(folder: Path, weight: float) -> float:
    """The weighted loss over all training examples, from the definition."""
    from transformers import AutoModelForCausalLM

    config = TrainConfig.model_validate(settings(folder, loss={"prompt_loss_weight": weight}))
    table = role_weights(config.loss)
    data: DataConfig = config.data
    model = AutoModelForCausalLM.from_pretrained(config.model.path).eval()
    total = count = 0.0
    for example in encode_all(read_split(data).train, data, load_tokenizer(config.model)):
        ids = torch.tensor(list(example.input_ids), dtype=torch.long)
        weights = torch.tensor([table[Role(int(role))] for role in example.roles][1:])
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        total += float((weights * nll).sum())
        count += float(weights.sum())
    return total / count
