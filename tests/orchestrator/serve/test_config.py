"""The configuration of `plw serve`, its command line and the removal of paths."""

from pathlib import Path

import pytest

from orchestrator.serve.config import default_config, load_serve_config
from orchestrator.serve.paths import without_paths
from tests.orchestrator.plw import plw, refused
from trainers.foundation.errors import InputError


def test_init_writes_a_configuration_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    assert "next: plw serve --config" in plw("serve", "--init", path).output
    assert load_serve_config(path) == default_config()
    assert "file exists" in refused("serve", "--init", path)


BAD = {
    "models: {}": "models: needs at least 1 value",
    "modles: {a: {path: x}}": "unknown key modles; did you mean models?",
    "models: {a/b: {path: x}}": "a model's name has 1 to 64 letters",
    "models: {a: {path: x, settings: {seed: 1}}}": "settings must not set seed",
    "models: {a: {path: x, settings: {loss: {prompt_loss_weight: 1}}}}": "must not set loss.prompt",
    "models: {a: {path: x, settings: {batch: {size: 1}}}}": "batch.size: Extra inputs",
    "models: {a: {path: x}}\nauto: {weights: [0]}": "auto.weights: needs at least 2 values",
    "models: {a: {path: x}}\nauto: {default: 2}": "auto.default: ",
    "models: {a: {path: x}}\nlimits: {file_mib: 0}": "limits.file_mib: ",
}


@pytest.mark.parametrize("text", BAD)
def test_a_malformed_configuration_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_serve_config(path)
    assert BAD[text] in str(caught.value)
    assert f"{path}:" in str(caught.value)


def test_a_missing_configuration_names_the_command_that_writes_one(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    assert f"no such file; correct the path, or create it with plw serve --init {path}" in refused(
        "serve", "--config", str(path)
    )


def test_other_hosts_need_keys(tmp_path: Path) -> None:
    message = refused("serve", "--host", "0.0.0.0", "--data", tmp_path / "data")
    assert "API keys are needed" in message
    assert "plw serve keys add NAME" in message
    assert not (tmp_path / "data").exists()


def test_keys_are_added_listed_and_removed(tmp_path: Path) -> None:
    key = plw("serve", "keys", "add", "ann", "--data", tmp_path).output.strip()
    assert key.startswith("sk-plw-")
    assert len(key) == 50
    assert plw("serve", "keys", "list", "--data", tmp_path).output == "ann\n"
    assert "there is a key named ann" in refused("serve", "keys", "add", "ann", "--data", tmp_path)
    plw("serve", "keys", "remove", "ann", "--data", tmp_path)
    assert "no key named ann" in refused("serve", "keys", "remove", "ann", "--data", tmp_path)


def test_texts_for_clients_have_no_path() -> None:
    text = "/srv/m/x: no weights; /srv/d/jobs/ftjob-1/training.jsonl:3: bad; see /etc/ssl/a.pem"
    assert without_paths(text, Path("/srv/d"), {"/srv/m/x": "tiny"}) == (
        "tiny: no weights; training.jsonl:3: bad; see [path]"
    )
    assert without_paths("http://host/v1/x and 1/2", Path("/srv/d"), {}) == (
        "http://host/v1/x and 1/2"
    )
