"""Names for what determines a result: a trial, a model, the texts of a data set."""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.spec.setting_fields import CADENCE
from trainers.config import ModelConfig
from trainers.data.examples import Example
from trainers.foundation.files import sha256_of
from trainers.models.loading import resolve_model_path


def fingerprint_trial(settings: Mapping[str, Any], model: str, data: str) -> str:
    """Ten hexadecimal digits that name a trial by what determines its result.

    Paths are replaced by the content they lead to; what only changes how often something is
    written is left out.
    """
    identity = copy.deepcopy(dict(settings))
    identity["model"] |= {"path": model}
    identity["data"] |= {
        "path": data,
        "template": fingerprint_template(settings["data"]["template"]),
    }
    for cadence in CADENCE:
        identity.pop(cadence)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def fingerprint_base(*, model: str, items: str, template: str, max_length: int) -> str:
    """Eight hexadecimal digits that name what an untuned model's scores depend on.

    Args:
        model: the model's fingerprint.
        items: the digest of the held-out examples.
    """
    identity = [model, items, fingerprint_template(template), max_length]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]


def fingerprint_template(template: str) -> str:
    """The digest of a template's file, or its name where it is one of the built-in ones."""
    path = Path(template)
    return sha256_of(path) if path.is_file() else template


def fingerprint_model(config: ModelConfig) -> str:
    """A digest of the model's files, or its hub name and revision."""
    folder = Path(resolve_model_path(config.path))
    if not folder.is_dir():
        return f"hub:{config.path}@{config.revision or 'default'}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def fingerprint_examples(examples: list[Example]) -> str:
    """A digest of the texts, in order."""
    digest = hashlib.sha256()
    for example in examples:
        for message in example.messages:
            digest.update(f"{message.role}\x00{message.content}\x00".encode())
    return f"sha256:{digest.hexdigest()[:16]}"
