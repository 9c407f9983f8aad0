"""Records of MT-Bench and Arena-Hard in the form of AlpacaEval's: instruction and output.

Sources: lm-sys/FastChat, fastchat/llm_judge/data/mt_bench (question.jsonl and model_answer), and
lmarena/arena-hard-auto, data (question.jsonl and model_answer of versions 0.1 and 2.0).
"""

from collections.abc import Mapping, Sequence
from typing import Any


def common_form(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with `instruction`, `turns`, `output`, `question_id` where it has them.

    The turns of a user, and the answers to them, are in one text each, with numbers.
    """
    found = dict(row)
    turns = _texts(row.get("turns"))
    if turns and "instruction" not in row:
        found |= {"turns": turns if len(turns) > 1 else [], "instruction": join_turns(turns)}
    elif isinstance(row.get("prompt"), str) and "instruction" not in row:
        found["instruction"] = row["prompt"]
    answers = _answers(row)
    if answers and "output" not in row:
        found["output"] = join_turns(answers)
    id = row.get("question_id", row.get("uid"))
    if isinstance(id, str | int):
        found["question_id"] = str(id)
    return found


def join_turns(texts: Sequence[str]) -> str:
    """Return one text as it is, and several under the numbers of their turns."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"[Turn {number}]\n{text}" for number, text in enumerate(texts, start=1))


def _answers(row: Mapping[str, Any]) -> list[str]:
    choices = row.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return _texts(choices[0].get("turns"))
    messages = row.get("messages")
    if not isinstance(messages, list):
        return []
    return _texts([m for m in messages if isinstance(m, Mapping) and m.get("role") == "assistant"])


def _texts(turns: Any) -> list[str]:
    """Return the texts of turns; an empty list if one of them has none."""
    if not isinstance(turns, list):
        return []
    texts = [_text(turn) for turn in turns]
    return [text for text in texts if text is not None] if None not in texts else []


def _text(turn: Any) -> str | None:
    """Return a text, or the one in the field `content` or `answer`."""
    if isinstance(turn, Mapping):
        return _text(turn.get("content", turn.get("answer")))
    return turn if isinstance(turn, str) else None
