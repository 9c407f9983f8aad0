"""Parse the body of a request that creates a job."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.serve.errors import (
    ApiError,
    invalid_value,
    missing_parameter,
    unknown_parameter,
)

AUTO = "auto"
HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier", "prompt_loss_weight")
_TOP_LEVEL = (
    *("model", "training_file", "validation_file", "suffix", "seed", "metadata"),
    *("hyperparameters", "method", "integrations", "prompt_loss_weight"),
)
_MAX_EPOCHS, _MAX_BATCH, _MAX_MULTIPLIER = 50, 4096, 1000.0
_MAX_SUFFIX = 64
_MAX_SEED = 2**31 - 1
_MAX_METADATA, _MAX_METADATA_KEY, _MAX_METADATA_VALUE = 16, 64, 512


@dataclass(frozen=True, kw_only=True)
class CreateRequest:
    """A valid request. `hyperparameters` has all four, each a number or `auto`.

    The weight is None where the request does not set it.
    """

    model: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    metadata: dict[str, str] | None
    hyperparameters: dict[str, Any]


def parse_create_request(body: Any) -> CreateRequest:
    """Return the request in a JSON body.

    Raises:
        ApiError: the body breaks a rule; names the first parameter that does.
    """
    fields = _object(body, "", _TOP_LEVEL)
    for name in ("model", "training_file"):
        if fields.get(name) is None:
            raise missing_parameter(name)
    _check_integrations(fields.get("integrations"))
    return CreateRequest(
        model=_text(fields["model"], "model"),
        training_file=_text(fields["training_file"], "training_file"),
        validation_file=_optional_text(fields, "validation_file"),
        suffix=_suffix(_optional_text(fields, "suffix")),
        seed=_seed(fields.get("seed")),
        metadata=_metadata(fields.get("metadata")),
        hyperparameters=_hyperparameters(fields),
    )


def _hyperparameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return all hyperparameters; each may be in up to three places, with the same value."""
    places: list[tuple[str, Mapping[str, Any]]] = []
    if fields.get("hyperparameters") is not None:
        places.append(
            (
                "hyperparameters.",
                _object(fields["hyperparameters"], "hyperparameters", HYPERPARAMETERS),
            )
        )
    if fields.get("method") is not None:
        places.append(("method.supervised.hyperparameters.", _of_method(fields["method"])))
    if fields.get("prompt_loss_weight") is not None:
        places.append(("", {"prompt_loss_weight": fields["prompt_loss_weight"]}))
    found: dict[str, tuple[str, Any]] = {}
    for prefix, given in places:
        for name, value in given.items():
            if value is None:
                continue
            param = prefix + name
            checked = _hyperparameter(name, value, param)
            if name in found and found[name][1] != checked:
                other, before = found[name]
                raise invalid_value(
                    param, f"'{param}' is {checked!r}, but '{other}' is {before!r}: send one."
                )
            found[name] = (param, checked)
    defaults: dict[str, Any] = dict.fromkeys(HYPERPARAMETERS[:3], AUTO)
    defaults["prompt_loss_weight"] = None
    return defaults | {name: value for name, (_, value) in found.items()}


def _of_method(method: Any) -> Mapping[str, Any]:
    fields = _object(method, "method", ("type", "supervised", "dpo", "reinforcement"))
    kind = fields.get("type")
    if kind is None:
        raise missing_parameter("method.type")
    if kind != "supervised":
        raise invalid_value(
            "method.type",
            f"Unsupported value: 'method.type' is {kind!r}, but only 'supervised' is supported.",
            "unsupported_value",
        )
    for name in ("dpo", "reinforcement"):
        if fields.get(name) is not None:
            raise invalid_value(f"method.{name}", f"'method.{name}' requires that type.")
    if fields.get("supervised") is None:
        return {}
    supervised = _object(fields["supervised"], "method.supervised", ("hyperparameters",))
    path = "method.supervised.hyperparameters"
    if supervised.get("hyperparameters") is None:
        return {}
    return _object(supervised["hyperparameters"], path, HYPERPARAMETERS)


def _hyperparameter(name: str, value: Any, param: str) -> Any:
    if value == AUTO:
        return AUTO
    if name in ("n_epochs", "batch_size"):
        top = _MAX_EPOCHS if name == "n_epochs" else _MAX_BATCH
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(param, "'auto' or an integer", value)
        if not 1 <= value <= top:
            raise _out_of_range(param, f"from 1 to {top}", value, "integer")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(param, "'auto' or a number", value)
    number = float(value)
    if name == "prompt_loss_weight":
        if not 0 <= number <= 1:
            raise _out_of_range(param, "from 0 to 1", value, "decimal")
    elif not 0 < number <= _MAX_MULTIPLIER:
        raise _out_of_range(param, f"above 0 and at most {_MAX_MULTIPLIER:g}", value, "decimal")
    return number


def _check_integrations(value: Any) -> None:
    if value in (None, []):
        return
    names = [one.get("type") for one in value if isinstance(one, dict)] if isinstance(
        value, list
    ) else []  # fmt: skip
    if "wandb" in names:
        message = (
            "The integration 'wandb' is not supported. Jobs are tracked in MLflow;"
            " remove 'integrations'."
        )
    else:
        message = "Integrations are not supported; remove 'integrations'."
    raise invalid_value("integrations", message, "unsupported_value")


def _seed(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type("seed", "an integer", value)
    if not 0 <= value <= _MAX_SEED:
        raise _out_of_range("seed", f"from 0 to {_MAX_SEED}", value, "integer")
    return value


def _suffix(value: str | None) -> str | None:
    if value is None:
        return None
    if len(value) > _MAX_SUFFIX:
        message = f"'suffix' has {len(value)} characters, but at most {_MAX_SUFFIX} are allowed."
        raise invalid_value("suffix", message, "string_above_max_length")
    if not all(c.isascii() and (c.isalnum() or c in "-_.") for c in value):
        raise invalid_value(
            "suffix", "'suffix' may contain letters, digits, '-', '_' and '.' only."
        )
    return value


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong_type("metadata", "an object", value)
    if len(value) > _MAX_METADATA:
        message = f"'metadata' has {len(value)} pairs, but at most {_MAX_METADATA} are allowed."
        raise invalid_value("metadata", message, "object_above_max_properties")
    for key, text in value.items():
        param = f"metadata.{key[:_MAX_METADATA_KEY]}"
        if not isinstance(text, str):
            raise _wrong_type(param, "a string", text)
        if len(key) > _MAX_METADATA_KEY or len(text) > _MAX_METADATA_VALUE:
            raise invalid_value(
                param,
                f"A key has at most {_MAX_METADATA_KEY} characters and a value"
                f" {_MAX_METADATA_VALUE}.",
                "string_above_max_length",
            )
    return dict(value)


def _object(value: Any, param: str, known: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        if not param:
            raise ApiError(400, "The body of the request must be a JSON object.")
        raise _wrong_type(param, "an object", value)
    for name in value:
        if name not in known:
            raise unknown_parameter(f"{param}.{name}" if param else name, known)
    return value


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(param, "a string", value)
    if not value:
        raise invalid_value(param, f"'{param}' must not be empty.", "empty_string")
    return value


def _optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields[name], name)


def _wrong_type(param: str, expected: str, value: Any) -> ApiError:
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    kinds |= {list: "an array", dict: "an object", type(None): "null"}
    got = kinds.get(type(value), "another type")
    if isinstance(value, str):
        got = f"the string {value[:40]!r}"
    message = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    return invalid_value(param, message, "invalid_type")


def _out_of_range(param: str, rule: str, value: float, kind: str) -> ApiError:
    bound = "below_min_value" if value < 1 and not math.isnan(value) else "above_max_value"
    return invalid_value(
        param, f"Invalid '{param}': it must be {rule}, got {value}.", f"{kind}_{bound}"
    )
