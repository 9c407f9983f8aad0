"""Compute fingerprints of trials, bases, models and data sets."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.plan.behaviour import CHANGES, behaviour_versions
from orchestrator.plan.identity_baseline import ADDED, BASELINE, IDENTITY_VERSION, baseline_names
from orchestrator.spec.setting_fields import INTERVAL_SETTINGS
from trainers.config import ModelConfig
from trainers.data.examples import Example
from trainers.data.template_files import template_file
from trainers.foundation.files import sha256_file
from trainers.models.loading import resolve_model_path

# Settings with paths that a trial's id replaces with the fingerprint of their content.
_CONTENT_PATHS = ("model.path", "data.path", "data.sources")
_ABSENT = object()


def fingerprint_trial(
    settings: Mapping[str, Any], model: str, data: str, *, is_truncated: bool = False
) -> str:
    """Return the id of a trial: ten hexadecimal digits, a hash of all inputs of its result.

    The inputs are the settings that differ from the frozen baseline, the versions of the behaviour
    changes that affect them, and the contents of model, data and template instead of their paths.

    Args:
        settings: complete settings of the trial, as nested JSON values.
        model: the model's fingerprint.
        data: the fingerprint of the data's examples.
        is_truncated: data.too_long truncates some of them.
    """
    frozen = {**BASELINE, **ADDED}
    changed = {
        name: _canonical(value)
        for name, value in identity_settings(settings).items()
        if name not in frozen or value != frozen[name]
    }
    identity = {
        "version": IDENTITY_VERSION,
        "model": model,
        "data": data,
        "settings": changed,
        "behaviour": behaviour_versions(settings, is_truncated=is_truncated),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def identity_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that can determine a result, by their dotted names in the baseline.

    An optional section has an additional entry: None if it is absent, {} if it is present.
    """
    current = baseline_names()
    leaves = {current.get(path, path): value for path, value in _leaves(settings)}
    for path in _CONTENT_PATHS:
        leaves.pop(path, None)
    leaves["data.template"] = fingerprint_template(settings["data"]["template"])
    return leaves


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        path = f"{prefix}{key}"
        known = BASELINE.get(path, ADDED.get(path, _ABSENT))
        if path in INTERVAL_SETTINGS:
            continue
        if not isinstance(value, Mapping) or isinstance(known, Mapping):
            yield path, value
            continue
        if known is None:
            yield path, {}
        yield from _leaves(value, f"{path}.")


def _canonical(value: Any) -> Any:
    """Return `value` with whole floats as integers, because 3.0 and 3 are the same setting."""
    if isinstance(value, Mapping):
        return {key: _canonical(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fingerprint_baseline(
    *,
    model: str,
    items: str,
    template: str,
    max_length: int,
    template_args: Mapping[str, Any] | None = None,
    truncation_side: str | None = None,
) -> str:
    """Return the key of a baseline: eight hexadecimal digits of what its scores depend on.

    Scores of releases that rendered chats differently are not reused.

    Args:
        model: the model's fingerprint.
        items: the digest of the held-out examples.
        truncation_side: data.truncation_side if held-out examples are truncated, else None.
    """
    identity: list[Any] = [model, items, fingerprint_template(template), max_length]
    if template == "chat":
        identity.append({"chat_rendering": CHANGES["chat_rendering"].version})
    if template_args:
        identity.append({"template_args": template_args})
    if truncation_side is not None:
        identity.append({"truncation": CHANGES["truncation"].version, "side": truncation_side})
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def fingerprint_template(template: str) -> str:
    """Return the digest of a template's file, or the name of a built-in template."""
    path = template_file(template)
    return sha256_file(path) if path else template


def fingerprint_model(config: ModelConfig) -> str:
    """Return a digest of the model's files, or its hub name and revision."""
    folder = Path(resolve_model_path(config.path))
    if not folder.is_dir():
        return f"hub:{config.path}@{config.revision or 'default'}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def fingerprint_examples(examples: Iterable[Example]) -> str:
    """Return a digest of the texts, in order, and of weights, tools and reasoning if present."""
    digest = hashlib.sha256()
    for example in examples:
        for message in example.messages:
            digest.update(f"{message.role}\x00{message.content}\x00".encode())
            if message.part_weights:
                digest.update(f"{message.part_weights}\x00".encode())
        if example.extras is not None:
            digest.update(f"extras\x00{example.extras}\x00".encode())
    return f"sha256:{digest.hexdigest()[:16]}"
