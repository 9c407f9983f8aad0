"""Assistant turns that are completions: only the last, or all."""

from pathlib import Path

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from tests.trainers.data.test_roles import chat, jinja_file, letters, spans
from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import Example, Message, pair
from trainers.data.template import Template
from trainers.data.tokenize import encode_examples
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

TWO_TURNS = chat(("user", "Hi"), ("assistant", "Ho"), ("user", "He"), ("assistant", "ok"))

ASSISTANT = "<|end|>\n<|start|>assistant\n"


def chat_template(source: str = CHAT_TEMPLATE) -> Template:
    return Template("chat", tiny_tokenizer(chat_template=source), "all")


def test_every_answer_and_its_end_of_turn_token_are_completions() -> None:
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


def test_three_answers_after_a_system_turn() -> None:
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
def test_the_tokens_equal_those_of_completion_turns_last(corpus: tuple[str, ...]) -> None:
    tokenizer = tiny_tokenizer(corpus, vocab_size=280, chat_template=CHAT_TEMPLATE)
    last, every = Template("chat", tokenizer), Template("chat", tokenizer, "all")
    assert every.encode(TWO_TURNS, 1000).input_ids == last.encode(TWO_TURNS, 1000).input_ids
    assert every.encode_prompt(TWO_TURNS) == last.encode_prompt(TWO_TURNS)


def test_a_single_turn_is_the_same_in_both_modes() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    example = pair("a", prompt="Hi", completion="ok")
    for name in ("chat", "alpaca", "plain"):
        every = Template(name, tokenizer, "all").encode(example, 1000)
        assert every == Template(name, tokenizer).encode(example, 1000)


def test_an_answer_that_also_occurs_elsewhere_is_located() -> None:
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


def test_white_space_before_the_end_of_turn_is_completion() -> None:
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
        ("COMPLETION", "ok \n<|end|>"),
    ]


def test_an_end_of_turn_token_need_not_end_the_sequence() -> None:
    source = CHAT_TEMPLATE.replace("<|end|>", "<|pad|>")
    template = chat_template(source)
    completions = [
        text for role, text in spans(template, template.encode(TWO_TURNS, 1000)) if role[0] == "C"
    ]
    assert completions == ["Ho<|pad|>", "ok<|pad|>"]


def test_a_jinja_file_renders_every_answer(tmp_path: Path) -> None:
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


CHANGED_TURN = (
    "chats.jsonl:1: data.completion_turns is all, but the template changes or omits an"
    " assistant turn; some templates remove the thinking of earlier turns; set data.template to a"
    " Jinja file that renders `messages` unchanged, or data.completion_turns to each"
)


def test_a_chat_template_that_strips_thinking_is_rejected() -> None:
    source = CHAT_TEMPLATE.replace(
        "{{ message.content | trim }}", "{{ message.content.split('</think>')[-1] | trim }}"
    )
    thinking = chat(
        ("user", "Hi"), ("assistant", "<think>Hm.</think>Ho"), ("user", "He"), ("assistant", "ok")
    )
    with pytest.raises(InputError, match="leaves the answer's thinking out"):
        chat_template(source).encode(thinking, 1000)


def test_a_chat_template_that_strips_earlier_thinking_is_refused_for_all_turns() -> None:
    template = Template("chat", tokenizer_with("thinking"), "all")
    thinking = chat(
        ("user", "Hi"), ("assistant", "<think>Hm.</think>Ho"), ("user", "He"), ("assistant", "ok")
    )
    with pytest.raises(
        InputError,
        match=r"messages\[1\] is a completion, but the chat template changes or omits it.*"
        r"; set data.completion_turns to each, so that each assistant turn becomes an example",
    ):
        template.encode(thinking, 1000)


@pytest.mark.parametrize(
    "source",
    [
        "{{ prompt }}<|end|>",
        "{% for m in messages %}{{ m.content | upper }}<|end|>{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ m.content }}<|end|>{% endfor %}",
    ],
)
def test_a_jinja_file_that_omits_an_answer_is_rejected(source: str, tmp_path: Path) -> None:
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer(), "all")
    with pytest.raises(InputError) as caught:
        template.encode(TWO_TURNS, 1000)
    assert str(caught.value) == CHANGED_TURN


@pytest.mark.parametrize("separator", ["\n", "\nuser<|end|>", ""])
def test_an_answer_without_an_end_of_turn_token_is_rejected(separator: str, tmp_path: Path) -> None:
    source = f"{{% for m in messages %}}{{{{ m.content }}}}{separator}{{% endfor %}}"
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer(), "all")
    with pytest.raises(InputError) as caught:
        template.encode(TWO_TURNS, 1000)
    assert str(caught.value) == (
        "chats.jsonl:1: data.completion_turns is all, but the template writes no special token"
        " right after an earlier assistant turn: the model would not learn to end it; write <|end|>"
        " there in the template, or set data.completion_turns to each"
    )


@pytest.mark.parametrize("name", ["plain", "alpaca"])
def test_single_turn_templates_reject_chats_in_both_modes(name: str) -> None:
    with pytest.raises(InputError, match="renders one user turn, but the chat has 4 messages"):
        Template(name, tiny_tokenizer(), "all").encode(TWO_TURNS, 1000)


def test_a_batch_equals_single_calls() -> None:
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


THINKING = chat(
    ("user", "Hi"), ("assistant", "<think>Hm.</think>Ho"), ("user", "He"), ("assistant", "ok")
)


def test_each_turn_can_be_an_example_as_at_inference() -> None:
    tokenizer = tokenizer_with("thinking")
    template = Template("chat", tokenizer, "each")
    turns = THINKING.split_turns()
    assert [turn.id for turn in turns] == ["chats.jsonl:1 messages[1]", "chats.jsonl:1 messages[3]"]
    found = [spans(template, whole.encoded()) for whole in template.tokenize(turns)]
    start = "<|im_start|>assistant\n"
    assert found[0][-2:] == [
        ("THINKING", "<think>\nHm.\n</think>\n\n"),
        ("COMPLETION", "Ho<|im_end|>"),
    ]
    assert found[1] == [
        ("TEMPLATE", "<|im_start|>user\n"),
        ("USER", "Hi"),
        ("TEMPLATE", f"<|im_end|>\n{start}"),
        ("HISTORY", "Ho"),
        ("TEMPLATE", "<|im_end|>\n<|im_start|>user\n"),
        ("USER", "He"),
        ("TEMPLATE", f"<|im_end|>\n{start}"),
        ("COMPLETION", "<think>\n\n</think>\n\nok<|im_end|>"),
    ]


def test_turns_of_weight_0_are_no_examples_and_weights_stay_with_their_turn() -> None:
    messages = (
        *(Message(role="user", content="1"), Message(role="assistant", content="a", weight=0.5)),
        *(Message(role="user", content="2"), Message(role="assistant", content="b", train=False)),
        *(Message(role="user", content="3"), Message(role="assistant", content="c", train=True)),
    )
    first, last = Example(id="x", messages=messages).split_turns()
    assert first.messages == messages[:2]
    assert last.messages == (
        messages[0],
        Message(role="assistant", content="a"),
        *messages[2:4],
        *messages[4:],
    )


def test_a_single_turn_is_one_example() -> None:
    example = pair("a", prompt="Hi", completion="ok")
    assert example.split_turns() == [example]


def test_examples_of_each_turn_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    config = DataConfig(path="chats.jsonl", completion_turns="each")
    with caplog.at_level("INFO"):
        encoded = encode_examples([THINKING, TWO_TURNS], config, tokenizer_with("thinking"))
    assert len(encoded) == 4
    assert "2 chats, with an example for each assistant turn" in caplog.text


def test_thinking_that_prompts_leave_out_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    line = "prompts without the thinking of earlier turns, as at inference: 1 example"
    with caplog.at_level("INFO"):
        encode_examples([TWO_TURNS, THINKING], DataConfig(path="d"), tokenizer_with("thinking"))
        assert line in caplog.messages
        caplog.clear()
        encode_examples([TWO_TURNS, THINKING], DataConfig(path="d"), tokenizer_with("chatml"))
        assert "without the thinking" not in caplog.text
