"""Compute the trial ids of releases before identity version 1, to find their trials."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from orchestrator.plan.behaviour import behaviour_versions
from orchestrator.plan.fingerprint import identity_settings
from orchestrator.plan.identity_baseline import ADDED, BASELINE


def legacy_trial_id(
    settings: Mapping[str, Any], model: str, data: str, *, is_truncated: bool = False
) -> str | None:
    """Return the id that an early release gave to the trial with these settings.

    Return None if that release would have trained differently: a setting that was added later
    differs from its frozen value, or a later behaviour change affects the settings.

    Args:
        settings: complete settings of the trial, as nested JSON values.
        model: the model's fingerprint.
        data: the fingerprint of the data's examples.
        is_truncated: data.too_long truncates some of them.
    """
    if behaviour_versions(settings, is_truncated=is_truncated):
        return None
    identity: dict[str, Any] = {"model": {"path": model}, "data": {"path": data}}
    for name, value in identity_settings(settings).items():
        if name not in BASELINE:
            if name not in ADDED or value != ADDED[name]:
                return None
            continue
        *parents, last = name.split(".")
        section = identity
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
