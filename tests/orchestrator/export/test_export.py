"""Tests of `plw export` to TRL, axolotl and ms-swift."""

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
from transformers import AutoTokenizer

from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import card, trial, write_sweep
from tests.trainers.data.chat_templates import THINKING
from tests.trainers.tiny_runs import settings, whole_settings
from trainers.config import TrainConfig
from trainers.data.roles import Role
from trainers.data.tokenize import encode_examples, read_split
from trainers.data_config import DataConfig
from trainers.models.loading import load_tokenizer
from trainers.token_weights import role_weights

STARTS = {"trl": "t.py", "axolotl": "a.yaml", "ms-swift": "s.yaml"}


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(settings(folder, **changes), file)
    return path


def export(folder: Path, framework: str, *options: object, **changes: Any) -> Path:
    """Export a config and return the main file."""
    out = folder / "out" / STARTS[framework]
    plw("export", write_config(folder, **changes), "--to", framework, "-o", out, *options)
    return out


def yaml_1_1(path: Path) -> Any:
    """Return the content of a YAML 1.1 file, as the frameworks read it."""
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
    """Return the SFTConfig arguments of a script without running it."""
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
def test_labels_are_the_tokens_with_weight_1(
    tmp_path: Path, framework: str, name: str, weight: int
) -> None:
    out = export(tmp_path, framework, "--plw", weight)
    written = rows(out.with_name(f"{name}.train.jsonl"))
    config = TrainConfig.model_validate(settings(tmp_path))
    expected = encode_examples(
        read_split(config.data).train, config.data, load_tokenizer(config.model)
    )
    assert len(written) == 32
    for row, example in zip(written, expected, strict=True):
        assert row["input_ids"] == list(example.input_ids)
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        counted = [weight == 1 or role == Role.COMPLETION for role in example.roles]
        counted[0] = False  # The first token is never predicted.
        labels = [i if c else -100 for i, c in zip(row["input_ids"], counted, strict=True)]
        assert row["labels"] == labels


def test_axolotl_config_has_tokens_and_the_recipe(tmp_path: Path) -> None:
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


def test_fractional_weights_are_rejected_by_frameworks_with_masks(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for framework, name in (("trl", "TRL"), ("axolotl", "axolotl")):
        output = refused("export", config, "--to", framework, "-o", tmp_path / "x")
        assert output.startswith(
            f"error: {name} cannot express these token weights"
            " (user 0.1, template 0.1, completion 1): "
        )
        assert "export to ms-swift" in output
    assert not (tmp_path / "x").exists()


def test_role_weights_are_exported_as_labels(tmp_path: Path) -> None:
    loss = {"prompt_loss_weight": 0.0, "role_weights": {"user": 1.0}}
    out = export(tmp_path, "trl", loss=loss)
    first = rows(out.with_name("t.train.jsonl"))[0]
    ignored = [i for i, label in zip(first["input_ids"], first["labels"], strict=True) if label < 0]
    tokenizer = load_tokenizer(TrainConfig.model_validate(settings(tmp_path)).model)
    assert tokenizer.decode(ignored[1:]) == "\n\n"


@pytest.mark.parametrize(("weight", "strategy"), [(0, "default"), (1, "all")])
def test_swift_uses_built_in_strategies_for_0_and_1(
    tmp_path: Path, weight: int, strategy: str
) -> None:
    out = export(tmp_path, "ms-swift", "--plw", weight)
    content = yaml_1_1(out)
    assert content["loss_scale"] == strategy
    assert "external_plugins" not in content
    [first, *_] = rows(out.with_name("s.train.jsonl"))
    user, assistant = first["messages"]
    assert user["content"].startswith("Add ")
    assert user["content"].endswith("\n\n")
    assert assistant["role"] == "assistant"


def test_swift_uses_a_plugin_for_fractional_weights(
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
    """Install a fake of the parts of ms-swift 4.5 that a plugin uses."""
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


def test_a_note_describes_the_loss_divisor(tmp_path: Path) -> None:
    def notes(loss: dict[str, Any], *options: object) -> str:
        config = write_config(tmp_path, loss=loss)
        out = tmp_path / "out" / "n.yaml"
        arguments = ("export", config, "--to", "ms-swift", "-o", out, "--force", *options)
        return str(plw_json(*arguments)["notes"][0])

    same = "which equals loss.normalization weights here"
    assert notes({}, "--plw", 0).endswith(same)
    assert notes({}, "--plw", 1).endswith(same)
    assert notes({"normalization": "nonzero"}, "--plw", 0.1).endswith("nonzero here")
    config = TrainConfig.model_validate(settings(tmp_path))
    encoded = encode_examples(
        read_split(config.data).train, config.data, load_tokenizer(config.model)
    )
    roles = [role for example in encoded for role in example.roles[1:]]
    completion = roles.count(Role.COMPLETION)
    prompt = len(roles) - completion
    ratio = (completion + 0.1 * prompt) / (completion + prompt)
    assert f"{ratio:.3g} times ours" in notes({}, "--plw", 0.1)
    ratio = completion / (completion + prompt)
    assert f"{ratio:.3g} times ours" in notes({"normalization": "completion"}, "--plw", 1)


def test_unsupported_settings_are_rejected(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    options = ("export", config, "--plw", 0, "-o", tmp_path / "x", "--to")
    penalty = ("--set", "optimizer.l2_sp=0.1")
    for framework in STARTS:
        assert "has no optimizer.l2_sp" in refused(*options, framework, *penalty)
    smoothing = ("--set", "loss.label_smoothing=0.1")
    assert "axolotl has no setting for loss.label_smoothing" in refused(
        *options, "axolotl", *smoothing
    )
    roles = ("--set", "loss.role_weights.user=0.5")
    assert "loss.role_weights or the data give user 0.5, template 0" in refused(
        *options, "ms-swift", *roles
    )
    assert "--workers must divide batch.global_batch_size 7, got 2" in refused(
        *options, "trl", "--workers", 2
    )


def test_swift_rejects_thinking_with_a_weight_of_its_own(tmp_path: Path) -> None:
    config = write_config(tmp_path, data={"path": str(tmp_path / "chat.jsonl")})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = THINKING
    tokenizer.save_pretrained(tmp_path / "model")
    answer = "<think>\nadd\n</think>\n\nFour."
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Two and two, the {number}. time?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for number in range(300)
    ]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    options = ("export", config, "--plw", 0, "--to", "ms-swift", "-o", tmp_path / "x.yaml")
    message = refused(*options, "--set", "loss.role_weights.thinking=0.5")
    assert "loss.role_weights or the data give completion 1, thinking 0.5" in message
    plw(*options, "--set", "loss.role_weights.thinking=1")


def write_chats(folder: Path, chat_template: str, *turns: dict[str, Any], **fields: Any) -> Path:
    """Write a config for chats with the given turns after a user turn."""
    data = {"path": str(folder / "chat.jsonl"), "heldout_examples": 0}
    config = write_config(folder, data=data, loss={})
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder / "model")
    chats = [
        {"messages": [{"role": "user", "content": f"Question {number}"}, *turns], **fields}
        for number in range(8)
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return config


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def test_swift_gets_the_whole_answer_with_thinking_and_tool_calls(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    template = THINKING.replace("<|im_end|>", "<eos>")
    config = write_chats(tmp_path, template, answer, tools=tools)
    plw("export", config, "--plw", 0, "--to", "ms-swift", "-o", tmp_path / "s.yaml")
    [first, *_] = rows(tmp_path / "s.train.jsonl")
    assert first["messages"][1]["content"] == (
        '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    )


ANSWER = {"role": "assistant", "content": "Yes"}
EARLIER = {"role": "assistant", "content": "No", "weight": 1}
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PARTS = [{"type": "text", "text": "a", "weight": 0}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    ("template", "turns", "fields", "reason"),
    [
        (CHAT.replace("<eos>", "<pad>"), [ANSWER], {}, "ends it with <pad>"),
        (CHAT, [EARLIER, {"role": "user", "content": "?"}, ANSWER], {}, "earlier assistant turns"),
        (CHAT, [{**ANSWER, "content": PARTS}], {}, "a part of it cannot have weight 0"),
    ],
)
def test_swift_rejects_chats_of_which_it_would_make_other_tokens(
    tmp_path: Path,
    template: str,
    turns: list[dict[str, Any]],
    fields: dict[str, Any],
    reason: str,
) -> None:
    config = write_chats(tmp_path, template, *turns, **fields)
    options = ("export", config, "--plw", 0, "-o", tmp_path / "x.py", "--to")
    message = refused(*options, "ms-swift")
    assert reason in message
    assert "chat.jsonl:" in message
    assert not (tmp_path / "x.train.jsonl").exists()
    plw(*options, "trl")


def test_weights_in_the_data_are_exported_as_labels_or_refused(tmp_path: Path) -> None:
    config = write_chats(tmp_path, CHAT, {**ANSWER, "content": PARTS}, weight=1)
    options = ("export", config, "--plw", 0, "-o", tmp_path / "x.py", "--to", "trl", "--force")
    plw(*options)
    [first, *_] = rows(tmp_path / "x.train.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.decode([label for label in first["labels"] if label >= 0]) == "b<eos>"
    config = write_chats(tmp_path, CHAT, {**ANSWER, "weight": 0.5})
    output = refused(*options)
    assert "TRL cannot express these token weights (user 0, template 0, completion 0.5)" in output
    assert output.endswith("has no weights; use plw train")
    config = write_chats(tmp_path, CHAT, ANSWER, weight=0.25)
    assert "completion 0.25" in refused(*options)
    assert "trl averages over tokens, not over examples" in refused(
        *options, "--set", "loss.normalization=examples"
    )


def test_a_sweep_exports_its_best_weight(tmp_path: Path) -> None:
    trials = [
        trial(weight).model_copy(update={"settings": whole_settings(tmp_path, weight)})
        for weight in (0.0, 0.01, 0.1, 0.242, 0.5, 1.0)
    ]
    scores = [(value, 0.1, 0.9) for value in (0.6, 0.52, 0.42, 0.38, 0.35, 0.30)]
    cards = {one.id: card({"quiz.acc": score}) for one, score in zip(trials, scores, strict=True)}
    folder = write_sweep(tmp_path / "s", trials, cards)
    found = plw_json("export", folder.root, "--to", "trl", "-o", tmp_path / "x.py")
    assert found["prompt_loss_weight"] == 0
    assert found["reason"].startswith("Multiple choice: improves towards PLW 0: best PLW 0")
    assert found["files"] == [str(tmp_path / "x.py"), str(tmp_path / "x.train.jsonl")]


def test_a_spec_that_searches_the_weight_requires_plw(tmp_path: Path) -> None:
    spec = write_config(tmp_path, search={"space": {"loss.prompt_loss_weight": [0, 1]}})
    options = ("export", spec, "--to", "trl", "-o", tmp_path / "x.py")
    assert "the spec searches loss.prompt_loss_weight and does not set it; give --plw" in refused(
        *options
    )
    plw(*options, "--plw", 1)


def test_existing_files_are_not_overwritten_without_force(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "x.train.jsonl").write_text("mine")
    options = ("export", config, "--plw", 0, "--to", "trl", "-o", tmp_path / "x.py")
    assert "file exists" in refused(*options)
    assert not (tmp_path / "x.py").exists()
    plw(*options, "--force")
    assert len(rows(tmp_path / "x.train.jsonl")) == 32


def test_scripts_parse_with_special_characters_in_paths(tmp_path: Path) -> None:
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
def test_trl_accepts_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_the_exported_script_has_the_same_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: int
) -> None:
    import trl

    monkeypatch.chdir(tmp_path)
    # One step over all examples in any order: its loss is that of the untrained model.
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

    class LossRecorder(trl.SFTTrainer):  # type: ignore[misc]
        def log(self, logs: dict[str, float], *rest: Any) -> None:
            losses.extend(value for name, value in logs.items() if name == "loss")
            super().log(logs, *rest)

    script.SFTTrainer = LossRecorder  # type: ignore[attr-defined]
    script.main()
    assert losses[0] == pytest.approx(untrained_loss(tmp_path, weight), rel=1e-4)


def untrained_loss(folder: Path, weight: float) -> float:
    """Compute the weighted loss over all training examples from its definition."""
    from transformers import AutoModelForCausalLM

    config = TrainConfig.model_validate(settings(folder, loss={"prompt_loss_weight": weight}))
    table = role_weights(config.loss)
    data: DataConfig = config.data
    model = AutoModelForCausalLM.from_pretrained(config.model.path).eval()
    total = count = 0.0
    for example in encode_examples(read_split(data).train, data, load_tokenizer(config.model)):
        ids = torch.tensor(list(example.input_ids), dtype=torch.long)
        weights = torch.tensor([table[Role(int(role))] for role in example.roles][1:])
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        total += float((weights * nll).sum())
        count += float(weights.sum())
    return total / count
