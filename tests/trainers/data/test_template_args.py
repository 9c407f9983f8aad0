"""Arguments of templates: variables such as enable_thinking, and the date of today."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from tests.trainers.data.test_roles import chat, jinja_file
from tests.trainers.tiny_tokenizer import tiny_tokenizer
from trainers.data.template import Template
from trainers.data.template_source import with_date
from trainers.data.token_cache import cache_key
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

HELLO = chat(("user", "Hi"), ("assistant", "Ho"))
CONFIG = DataConfig(path="chats.jsonl")


def dated(args: dict[str, Any]) -> str:
    return Template("chat", tokenizer_with("dated"), args=args).render_prompt(HELLO)


def problem(name: str, args: dict[str, Any], template: str = "chat") -> str:
    with pytest.raises(InputError) as caught:
        Template(template, tokenizer_with(name), args=args)
    return str(caught.value)


def test_the_template_reads_its_arguments() -> None:
    template = Template("chat", tokenizer_with("switched"), args={"enable_thinking": False})
    assert template.render_prompt(HELLO) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    encoded = template.encode(HELLO, 1000)
    assert template.tokenizer.decode(encoded.input_ids).endswith("</think>\n\nHo<|im_end|>")


def test_tools_are_those_of_chats_without_any() -> None:
    template = Template("chat", tokenizer_with("thinking"), args={"tools": [{"name": "clock"}]})
    assert '# Tools\n{"name": "clock"}\n' in template.render_prompt(HELLO)


def test_an_argument_that_the_template_does_not_read_is_rejected() -> None:
    assert problem("switched", {"enable_thinkin": False}) == (
        "data.template_args.enable_thinkin: the template chat does not read enable_thinkin; did you"
        " mean enable_thinking?"
    )
    assert problem("chatml", {"enable_thinking": False}) == (
        "data.template_args.enable_thinking: the template chat does not read enable_thinking;"
        " remove it: the template takes no arguments"
    )
    assert "the template plain does not read date" in problem("dated", {"date": "x"}, "plain")
    assert "does not read messages" in problem("chatml", {"messages": []})


def test_a_template_shows_the_given_date_instead_of_todays() -> None:
    assert dated({"date": "2024-02-29"}).startswith("Today: 29 Feb 2024\n")
    assert dated({"date": "2026-11-30"}).startswith("Today: 30 Nov 2026\n")
    assert dated({"date_string": "1 May"}).startswith("Today: 1 May\n")


def test_a_template_that_shows_the_date_needs_one() -> None:
    assert problem("dated", {}) == (
        "the template chat shows the date of today, so that each day has other prompts; set"
        " data.template_args.date, such as 2026-11-29"
    )


def test_only_a_template_that_shows_the_date_gets_one() -> None:
    today = date(2026, 11, 29)
    assert with_date(CONFIG, tokenizer_with("chatml"), today) == CONFIG
    found = with_date(CONFIG, tokenizer_with("dated"), today)
    assert found.template_args == {"date": "2026-11-29"}
    assert with_date(found, tokenizer_with("dated"), date(2027, 1, 1)) == found
    own = CONFIG.model_copy(update={"template_args": {"date_string": "1 May"}})
    assert with_date(own, tokenizer_with("dated"), today) == own


def test_tokens_of_other_arguments_are_not_reused() -> None:
    tokenizer = tokenizer_with("dated")
    keys = {
        cache_key([HELLO], Template("chat", tokenizer, args={"date": day}), CONFIG)
        for day in ("2026-11-29", "2026-11-30")
    }
    assert len(keys) == 2


def test_a_jinja_file_gets_arguments_and_date(tmp_path: Path) -> None:
    file = jinja_file(tmp_path, "{{ strftime_now('%Y') }} {{ tone }}: {{ prompt }}\n")
    args = {"date": "2026-11-29", "tone": "Kindly"}
    assert Template(file, tiny_tokenizer(), args=args).render_prompt(HELLO) == "2026 Kindly: Hi\n"


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"date": "29.11.2026"}, "must be a day such as 2026-11-29, got '29.11.2026'"),
        ({"date": 2026}, "must be a day such as 2026-11-29, got 2026"),
        ({"a": {1, 2}}, "must be plain values"),
    ],
)
def test_arguments_are_plain_values(given: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        DataConfig(path="d", template_args=given)


def test_a_date_of_yaml_becomes_text() -> None:
    config = DataConfig(path="d", template_args={"date": date(2026, 11, 29)})
    assert config.template_args == {"date": "2026-11-29"}


def test_an_argument_that_works_is_named() -> None:
    tokenizer = tokenizer_with("switched")
    answer = "<think>\nHm.\n</think>\n\nHo"
    # With thinking turned off, the prompt contains an empty block, which such an answer lacks.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<think>\n\n</think>\n\n{% endif %}{{ m.content }}", "{% endif %}{{ m.content }}"
    )
    template = Template("chat", tokenizer, args={"enable_thinking": False})
    with pytest.raises(InputError, match=r"; set data.template_args.enable_thinking to true$"):
        template.encode(chat(("user", "Hi"), ("assistant", answer)), 1000)
