"""Models whose completions have other tokens now get another fingerprint, others keep theirs."""

import pytest

from orchestrator.plan.tokens_version import tokens_version
from tests.trainers.data.chat_templates import CHATML, tokenizer_with
from tests.trainers.data.sentencepiece_tokenizer import spaced_tokenizer


@pytest.mark.parametrize(
    ("template", "version"),
    [
        ("chatml", ""),
        ("two-ends", ""),
        ("end-in-two", ""),
        ("no-end", ""),
        ("joined-ends", "+tokens2"),
        ("plain-end", "+tokens2"),
    ],
)
def test_a_template_with_another_end_than_before_changes_the_fingerprint(
    template: str, version: str
) -> None:
    assert tokens_version(tokenizer_with(template)) == version


def test_a_tokenizer_that_writes_a_space_at_the_start_changes_the_fingerprint() -> None:
    assert tokens_version(spaced_tokenizer("metaspace", CHATML)) == "+tokens2"
    assert tokens_version(spaced_tokenizer("prepend", CHATML)) == "+tokens2"
