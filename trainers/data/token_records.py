"""Parse records that were tokenised before: ids, and which of them belong to the completion."""

import hashlib
import json
import re
from collections.abc import Callable, Collection
from typing import Any

from trainers.data.examples import Example, GivenTokens
from trainers.data.record_fields import (
    WEIGHT_RULE,
    FieldParser,
    format_value,
    ignore_fix,
    is_meaningful,
    is_weight,
)

_MAX_ID = 2**31 - 1  # Tokens are stored as int32.
# Label of a token that belongs to the prompt, as in transformers and PyTorch's cross entropy.
_PROMPT_LABEL = -100
# Fields that are 1 for tokens of the completion. TRL has the last two.
_MASKS = ("loss_mask", "completion_mask", "assistant_masks")
_WEIGHTS = ("loss_weights", "weights")
_KNOWN = {"input_ids", "labels", "attention_mask", "position_ids", "weight", *_MASKS, *_WEIGHTS}
# Fields that divide the tokens of a record into several examples, or go with images.
_UNSUPPORTED = re.compile(
    r"pixel_values|(cu_)?(seq|sequence)_?len(gth)?s.*|cu_seqlens.*|(seq|sequence|segment|sample)_ids"
)


def is_tokenised(content: Any, ignore: Collection[str]) -> bool:
    """Return whether a record has token ids that are not in data.ignore."""
    if not isinstance(content, dict) or "input_ids" in ignore:
        return False
    return content.get("input_ids") not in (None, "")


class TokenRecordParser(FieldParser):
    """Converts one tokenised record to an example.

    Tokens with label -100 or mask 0 are the prompt, all others the completion. Without labels and
    mask, the completion is the tokens whose weight is above 0. Padding at the ends is removed.
    """

    def example(self) -> Example | None:
        """Return the example; None if the record has problems or is dropped."""
        self._fields = {
            name: self.json_value(value, name) for name, value in self.record_fields().items()
        }
        if self.problems:
            return None
        ids = self._values("input_ids", _is_id, f"token ids, integers from 0 to {_MAX_ID}")
        if not ids:
            if ids is not None:
                self.reject_empty("input_ids must not be empty", "remove the record")
            return None
        weights = self._weights()
        mask = self._completion_mask(ids, weights)
        start, stop = self._padding(len(ids))
        self._check_positions(start, stop)
        if mask is not None and weights is None and "attention_mask" not in self._fields:
            self._check_end(ids, mask)
        sample_weight = self.weight(self._fields.get("weight", 1), "weight")
        if sample_weight == 0:
            self.dropped = "weight 0"
        self._check_rest()
        if self.problems or self.dropped is not None or mask is None:
            return None
        tokens = GivenTokens(
            input_ids=tuple(ids[start:stop]),
            is_completion=tuple(mask[start:stop]),
            weights=None if weights is None else tuple(map(float, weights[start:stop])),
        )
        if not any(tokens.is_completion[1:]):
            self.reject_empty(
                "no token after the first belongs to the completion", "remove the record"
            )
            return None
        content = [tokens.input_ids, tokens.is_completion, tokens.weights, sample_weight]
        return Example(
            id=self.row.id,
            messages=(),
            tokens=tokens,
            extras=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
            sample_weight=sample_weight,
        )

    def _values(self, name: str, is_valid: Callable[[Any], bool], rule: str) -> list[Any] | None:
        """Return the list in a field; None if the record does not have it or it is not valid."""
        values = self._fields.get(name)
        if values is None:
            return None
        ids = self._fields["input_ids"]
        if not isinstance(values, list) or not all(map(is_valid, values)):
            wrong = values
            if isinstance(values, list):
                wrong = next(value for value in values if not is_valid(value))
            self.add_problem(f"{name} must be a list of {rule}, got {format_value(wrong)}")
        elif isinstance(ids, list) and len(values) != len(ids):
            self.add_problem(f"{name} has {len(values)} values, but input_ids has {len(ids)}")
        else:
            return values
        return None

    def _weights(self) -> list[float] | None:
        name = self._only_one(_WEIGHTS)
        return self._values(name, is_weight, f"weights, {WEIGHT_RULE}") if name else None

    def _completion_mask(self, ids: list[int], weights: list[float] | None) -> list[bool] | None:
        name = self._only_one(("labels", *_MASKS))
        if name == "labels":
            labels = self._values("labels", _is_label, "token ids and -100")
            wrong = [
                index
                for index, (label, id) in enumerate(zip(labels or [], ids, strict=False))
                if label not in (_PROMPT_LABEL, id)
            ]
            if wrong:
                found = f"{labels[wrong[0]] if labels else None} for {ids[wrong[0]]}"
                self.add_problem(
                    f"labels[{wrong[0]}] must be -100 or the id at the same position, got {found}",
                    "do not shift labels; the loss does it",
                )
            return None if labels is None else [label != _PROMPT_LABEL for label in labels]
        if name is not None:
            mask = self._values(name, _is_flag, "0 and 1")
            return None if mask is None else [bool(flag) for flag in mask]
        if weights is not None:
            return [weight > 0 for weight in weights]
        if not self.problems:
            self.add_problem(
                "a record with input_ids must say which tokens belong to the completion",
                "add labels (-100 for the prompt), loss_mask (0 or 1) or loss_weights",
            )
        return None

    def _only_one(self, names: tuple[str, ...]) -> str | None:
        found = [name for name in names if name in self._fields]
        if len(found) > 1:
            self.add_problem(f"the record has {found[0]} and {found[1]}", ignore_fix(found[1]))
        return found[0] if found else None

    def _padding(self, num_tokens: int) -> tuple[int, int]:
        """Return the start and the end of the tokens that are not padding."""
        mask = self._values("attention_mask", _is_flag, "0 and 1")
        if mask is None:
            return 0, num_tokens
        if 1 not in mask or 0 in mask[mask.index(1) : num_tokens - mask[::-1].index(1)]:
            self.add_problem("attention_mask must be 1 except for padding at the ends")
            return 0, num_tokens
        return mask.index(1), num_tokens - mask[::-1].index(1)

    def _check_positions(self, start: int, stop: int) -> None:
        """Reject position ids that begin again, as those of several examples in one record."""
        positions = self._values("position_ids", _is_id, "positions")
        if positions is not None and positions[start:stop] != list(range(stop - start)):
            self.add_problem(
                "position_ids must count from 0: a record is one example",
                "write a record for each example, or list position_ids in data.ignore",
            )

    def _check_end(self, ids: list[int], mask: list[bool]) -> None:
        """Reject what appears to be padding: it would be trained on as a part of the prompt."""
        num_others = mask[::-1].index(True) if True in mask else 0
        if num_others > 1 and len(set(ids[-num_others:])) == 1:
            self.add_problem(
                f"the last {num_others} tokens are all {ids[-1]} and not the completion, which is"
                " how padding looks",
                "remove it, or mark it with 0 in attention_mask",
            )

    def _check_rest(self) -> None:
        for name in sorted(self._fields.keys() - _KNOWN):
            if self._fields[name] in ("", [], {}):
                continue
            if is_meaningful(name) or _UNSUPPORTED.fullmatch(name.lower()):
                self.add_problem(f"the field {name} is not supported", ignore_fix(name, _KNOWN))
            else:
                self.ignored.add(name)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_ID


def _is_label(value: Any) -> bool:
    return type(value) is int and (value >= 0 or value == _PROMPT_LABEL)


def _is_flag(value: Any) -> bool:
    return value in (0, 1)
