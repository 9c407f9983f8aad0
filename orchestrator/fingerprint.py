"""Names for what determines a result: a trial, a model, the texts of a data set."""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.setting_fields import CADENCE
from orchestrator.spec import SweepSpec
from trainers.examples import Example
from trainers.files import sha256_of
from trainers.models import resolve_model_path


def fingerprint_trial(settings: Mapping[str, Any], model: str, data: str) -> str:
    """Ten hexadecimal digits that name a trial by what determines its result.

    Paths are replaced by the content they lead to; what only changes how often something is
    written is left out.
    """
    identity = copy.deepcopy(dict(settings))
    identity["model"] |= {"path": model}
    identity["data"] |= {"path": data}
    template = Path(settings["data"]["template"])
    if template.is_file():
        identity["data"]["template"] = sha256_of(template)
    for cadence in CADENCE:
        identity.pop(cadence)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def fingerprint_model(spec: SweepSpec) -> str:
    """A digest of the model's files, or its hub name and revision."""
    folder = Path(resolve_model_path(spec.model.path))
    if not folder.is_dir():
        return f"hub:{spec.model.path}@{spec.model.revision or 'default'}"
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
