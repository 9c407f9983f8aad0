"""Which assistant turns of a chat are completion: the last alone, or every one."""

from pathlib import Path

import pytest

from tests.trainers.data.test_roles import chat, jinja_file, letters, spans, tokens
from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import pair
from trainers.data.roles import Template
from trainers.foundation.errors import InputError

TWO_TURNS = chat(("user", "Hi"), ("assistant", "Ho"), ("user", "He"), ("assistant", "ok"))

ASSISTANT = "<|end|>\n<|start|>assistant\n"


def chat_template(source: str = CHAT_TEMPLATE) -> Template:
    return Template("chat", tiny_tokenizer(chat_template=source), "all")


def test_every_answer_and_its_end_of_turn_token_are_completion() -> None:
    template = chat_template()
    assert spans(template, template.encode(TWO_TURNS, 1000)) == [
        ("TEMPLATE", "<|start|>system\nYou help.<|end|>\n<|start|>user\n"),
        ("USER", "Hi"),
        ("TEMPLATE", ASSISTANT),
        ("COMPLETION", "Ho<|end|>"),
        ("TEMPLATE", "\n<|start|>user\n"),
        ("USER", "He"),
        ("TEMPLATE", ASSISTANT),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_three_answers_behind_a_system_turn() -> None:
    template = chat_template()
    example = chat(
        ("system", "S"),
        *(("user", "1"), ("assistant", "a")),
        *(("user", "2"), ("assistant", "b")),
        *(("user", "3"), ("assistant", "c")),
    )
    encoded = template.encode(example, 1000)
    assert letters(encoded) == (
        # <|start|>system\n S <|end|>\n<|start|>user\n 1 <|end|>\n<|start|>assistant\n a<|end|>
        "TTTTTTTT"
        "S"
        "TTTTTTTT"
        "U"
        "TTTTTTTTTTTTT"
        "CC"
        # \n<|start|>user\n 2 <|end|>\n<|start|>assistant\n b<|end|>
        "TTTTTTT"
        "U"
        "TTTTTTTTTTTTT"
        "CC"
        "TTTTTTT"
        "U"
        "TTTTTTTTTTTTT"
        "CC"
    )
    assert encoded.num_completion_tokens == 6


@pytest.mark.parametrize("corpus", [(), ("\nHo Hi\n",) * 9])
def test_the_tokens_are_those_of_the_last_turn_alone(corpus: tuple[str, ...]) -> None:
    tokenizer = tiny_tokenizer(corpus, vocab_size=280, chat_template=CHAT_TEMPLATE)
    last, every = Template("chat", tokenizer), Template("chat", tokenizer, "all")
    assert every.encode(TWO_TURNS, 1000).input_ids == last.encode(TWO_TURNS, 1000).input_ids
    assert every.encode_prompt(TWO_TURNS) == last.encode_prompt(TWO_TURNS)


def test_a_single_turn_is_the_same_either_way() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    example = pair("a", prompt="Hi", completion="ok")
    for name in ("chat", "alpaca", "plain"):
        every = Template(name, tokenizer, "all").encode(example, 1000)
        assert every == Template(name, tokenizer).encode(example, 1000)


def test_an_answer_that_also_stands_elsewhere_is_told_apart() -> None:
    template = chat_template()
    example = chat(("user", "a"), ("assistant", "a"), ("user", "a"), ("assistant", "a"))
    assert spans(template, template.encode(example, 1000))[1:] == [
        ("USER", "a"),
        ("TEMPLATE", ASSISTANT),
        ("COMPLETION", "a<|end|>"),
        ("TEMPLATE", "\n<|start|>user\n"),
        ("USER", "a"),
        ("TEMPLATE", ASSISTANT),
        ("COMPLETION", "a<|end|>"),
    ]


def test_white_space_before_the_end_of_turn_is_for_the_model_to_write() -> None:
    source = (
        "{% for m in messages %}{{ m.role[0] }}{{ m.content }} \n<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}a{% endif %}"
    )
    template = chat_template(source)
    assert spans(template, template.encode(TWO_TURNS, 1000)) == [
        ("TEMPLATE", "u"),
        ("USER", "Hi"),
        ("TEMPLATE", " \n<|end|>\na"),
        ("COMPLETION", "Ho \n<|end|>"),
        ("TEMPLATE", "\nu"),
        ("USER", "He"),
        ("TEMPLATE", " \n<|end|>\na"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_an_end_of_turn_token_need_not_end_the_sequence() -> None:
    source = CHAT_TEMPLATE.replace("<|end|>", "<|pad|>")
    template = chat_template(source)
    completions = [
        text for role, text in spans(template, template.encode(TWO_TURNS, 1000)) if role[0] == "C"
    ]
    assert completions == ["Ho<|pad|>", "ok<|end|>"]


def test_a_jinja_file_shows_every_answer(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% if m.role == 'assistant' %}<|end|>{% endif %}\n{% endfor %}assistant: "
    )
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer(), "all")
    assert spans(template, template.encode(TWO_TURNS, 1000)) == [
        ("TEMPLATE", "user: "),
        ("USER", "Hi"),
        ("TEMPLATE", "\nassistant: "),
        ("COMPLETION", "Ho<|end|>"),
        ("TEMPLATE", "\nuser: "),
        ("USER", "He"),
        ("TEMPLATE", "\nassistant: "),
        ("COMPLETION", "ok<|end|>"),
    ]


UNSEEN = (
    "chats.jsonl:1: data.completion_turns is all, but the template does not show every assistant"
    " turn unchanged: some strip the thinking of earlier ones, or leave them out; set data.template"
    " to a Jinja file that renders `messages` as they are"
)


def test_a_chat_template_that_strips_thinking_is_refused() -> None:
    source = CHAT_TEMPLATE.replace(
        "{{ message.content | trim }}", "{{ message.content.split('</think>')[-1] | trim }}"
    )
    thinking = chat(
        ("user", "Hi"), ("assistant", "<think>Hm.</think>Ho"), ("user", "He"), ("assistant", "ok")
    )
    with pytest.raises(InputError) as caught:
        chat_template(source).encode(thinking, 1000)
    assert str(caught.value) == UNSEEN


@pytest.mark.parametrize(
    "source",
    [
        "{{ prompt }}<|end|>",
        "{% for m in messages %}{{ m.content | upper }}<|end|>{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ m.content }}<|end|>{% endfor %}",
    ],
)
def test_a_jinja_file_that_does_not_show_every_answer_is_refused(
    source: str, tmp_path: Path
) -> None:
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer(), "all")
    with pytest.raises(InputError) as caught:
        template.encode(TWO_TURNS, 1000)
    assert str(caught.value) == UNSEEN


@pytest.mark.parametrize("separator", ["\n", "\nuser<|end|>", ""])
def test_an_answer_without_an_end_of_turn_token_is_refused(separator: str, tmp_path: Path) -> None:
    source = f"{{% for m in messages %}}{{{{ m.content }}}}{separator}{{% endfor %}}"
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer(), "all")
    with pytest.raises(InputError) as caught:
        template.encode(TWO_TURNS, 1000)
    assert str(caught.value) == (
        "chats.jsonl:1: data.completion_turns is all, but the template puts no special token right"
        " behind an earlier assistant turn: the model would not learn to end it; let it write"
        " <|end|> there"
    )


@pytest.mark.parametrize("name", ["plain", "alpaca"])
def test_single_turn_templates_refuse_chats_as_ever(name: str) -> None:
    with pytest.raises(InputError, match="shows one user turn, but the chat has 4 messages"):
        Template(name, tiny_tokenizer(), "all").encode(TWO_TURNS, 1000)


def test_truncation_takes_earlier_answers_first() -> None:
    template = chat_template()
    encoded = template.encode(TWO_TURNS, 26)
    assert tokens(template, encoded)[:4] == ["<|end|>", "\n", "<|start|>", "u"]
    assert letters(encoded) == "C" + "T" * 7 + "U" * 2 + "T" * 13 + "CCC"
    # <|start|>system\nYou help.<|end|>\n, <|start|>user\n, Hi, <|end|>\n<|start|>assistant\n, Ho
    assert encoded.num_truncated_tokens == 19 + 6 + 2 + 13 + 2


def test_a_batch_gives_what_one_by_one_gives() -> None:
    tokenizer = tiny_tokenizer(("Hi you\n",) * 9, vocab_size=280, chat_template=CHAT_TEMPLATE)
    template = Template("chat", tokenizer, "all")
    examples = [
        TWO_TURNS,
        pair("b", prompt="Hi you, é", completion="ü"),
        chat(("system", "S"), ("user", "Hi you"), ("assistant", "Ho")),
        pair("d", prompt=" Hi\n", completion=" ok\n"),
    ]
    whole = template.tokenize(examples)
    assert whole == [template.tokenize([example])[0] for example in examples]
