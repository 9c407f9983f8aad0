"""Every token of a rendered example has the role of the text it came from."""

from itertools import groupby
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import Example, Message, pair
from trainers.data.roles import Encoded, Role, Template
from trainers.foundation.errors import InputError

HI = pair("a", prompt="Hi", completion="ok")


def letters(encoded: Encoded) -> str:
    """One letter for each token: Padding, System, User, Template, Completion."""
    return "".join("PSUTC"[role] for role in encoded.roles)


def tokens(template: Template, encoded: Encoded) -> list[str]:
    shown = template.tokenizer.convert_ids_to_tokens(encoded.input_ids)
    return [token.replace("Ċ", "\n").replace("Ġ", " ") for token in shown]


def spans(template: Template, encoded: Encoded) -> list[tuple[str, str]]:
    """(role, text) of each run of tokens with one role."""
    pairs = zip(encoded.roles, tokens(template, encoded), strict=True)
    runs = groupby(pairs, key=lambda pair: pair[0])
    return [(Role(role).name, "".join(token for _, token in run)) for role, run in runs]


def chat(*turns: tuple[str, str]) -> Example:
    messages = tuple(Message(role=role, content=text) for role, text in turns)  # type: ignore[arg-type]
    return Example(id="chats.jsonl:1", messages=messages)


def jinja_file(folder: Path, source: str) -> str:
    path = folder / "prompt.jinja"
    path.write_text(source, encoding="utf-8")
    return str(path)


def test_plain_shows_the_prompt_and_a_blank_line() -> None:
    template = Template("plain", tiny_tokenizer())
    encoded = template.encode(HI, 100)
    assert tokens(template, encoded) == ["H", "i", "\n", "\n", "o", "k", "<|end|>"]
    assert letters(encoded) == "UUTTCCC"
    assert (encoded.num_prompt_tokens, encoded.num_completion_tokens) == (4, 3)
    assert encoded.num_truncated_tokens == 0


def test_alpaca_without_input_is_worded_as_stanford_did() -> None:
    example = Example(id="a", messages=HI.messages, instruction="Hi", input="")
    template = Template("alpaca", tiny_tokenizer())
    assert spans(template, template.encode(example, 1000)) == [
        (
            "TEMPLATE",
            "Below is an instruction that describes a task. Write a response that appropriately"
            " completes the request.\n\n### Instruction:\n",
        ),
        ("USER", "Hi"),
        ("TEMPLATE", "\n\n### Response:"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_alpaca_with_input_keeps_instruction_and_input_apart() -> None:
    example = Example(
        id="a",
        messages=pair("a", prompt="Add.\n\n1, 2", completion="3").messages,
        instruction="Add.",
        input="1, 2",
    )
    template = Template("alpaca", tiny_tokenizer())
    assert spans(template, template.encode(example, 1000)) == [
        (
            "TEMPLATE",
            "Below is an instruction that describes a task, paired with an input that provides"
            " further context. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\n",
        ),
        ("USER", "Add."),
        ("TEMPLATE", "\n\n### Input:\n"),
        ("USER", "1, 2"),
        ("TEMPLATE", "\n\n### Response:"),
        ("COMPLETION", "3<|end|>"),
    ]


def test_alpaca_takes_the_prompt_of_other_records_for_the_instruction() -> None:
    template = Template("alpaca", tiny_tokenizer())
    roles = spans(template, template.encode(HI, 1000))
    assert [text for role, text in roles if role == "USER"] == ["Hi"]


def test_chat_marks_system_and_user_turns() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    example = chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "ok"))
    assert spans(template, template.encode(example, 1000)) == [
        ("TEMPLATE", "<|start|>system\n"),
        ("SYSTEM", "Be kind."),
        ("TEMPLATE", "<|end|>\n<|start|>user\n"),
        ("USER", "Hi"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_chat_counts_earlier_answers_to_the_prompt() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    example = chat(("user", "Hi"), ("assistant", "Ho"), ("user", "Hi"), ("assistant", "ok"))
    assert spans(template, template.encode(example, 1000))[1:] == [
        ("USER", "Hi"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("USER", "Ho"),
        ("TEMPLATE", "<|end|>\n<|start|>user\n"),
        ("USER", "Hi"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_chat_is_not_misled_by_a_text_that_the_template_also_says() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    example = pair("a", prompt="help", completion="ok")
    assert spans(template, template.encode(example, 1000)) == [
        ("TEMPLATE", "<|start|>system\nYou help.<|end|>\n<|start|>user\n"),
        ("USER", "help"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_chat_follows_a_template_that_trims() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    example = pair("a", prompt="\n Hi\n", completion="ok")
    assert spans(template, template.encode(example, 1000))[1:3] == [
        ("USER", "Hi"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
    ]


def test_chat_keeps_the_white_space_that_a_template_keeps() -> None:
    source = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
    template = Template("chat", tiny_tokenizer(chat_template=source))
    example = pair("a", prompt=" Hi\n", completion="ok")
    assert spans(template, template.encode(example, 1000))[:3] == [
        ("TEMPLATE", "["),
        ("USER", " Hi\n"),
        ("TEMPLATE", "]"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ messages[0].content | upper }}",
            "a: the chat template does not show a message's text unchanged; "
            "set data.template to alpaca or plain",
        ),
        (
            "{{ raise_exception('no system turn, please') }}",
            "a: the chat template refuses the chat: no system turn, please; "
            "set data.template to alpaca or plain",
        ),
    ],
)
def test_chat_that_does_not_fit_names_the_example(source: str, message: str) -> None:
    template = Template("chat", tiny_tokenizer(chat_template=source))
    with pytest.raises(InputError) as caught:
        template.encode(HI, 100)
    assert str(caught.value) == message


def test_chat_that_leaves_out_a_message_is_refused() -> None:
    source = "{{ messages[-1].content }}"
    template = Template("chat", tiny_tokenizer(chat_template=source))
    with pytest.raises(InputError, match="does not show a message's text"):
        template.encode(chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "ok")), 100)


def test_jinja_file_renders_the_prompt(tmp_path: Path) -> None:
    template = Template(jinja_file(tmp_path, "Q: {{ prompt }}\nA:\n"), tiny_tokenizer())
    assert spans(template, template.encode(pair("a", prompt="Q", completion="ok"), 100)) == [
        ("TEMPLATE", "Q: "),
        ("USER", "Q"),
        ("TEMPLATE", "\nA:\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_jinja_file_renders_instruction_and_input(tmp_path: Path) -> None:
    source = "{{ instruction }}{% if input %} ({{ input }}){% endif %}="
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer())
    messages = pair("a", prompt="Add.\n\n1, 2", completion="3").messages
    with_input = Example(id="a", messages=messages, instruction="Add.", input="1, 2")
    assert spans(template, template.encode(with_input, 100)) == [
        ("USER", "Add."),
        ("TEMPLATE", " ("),
        ("USER", "1, 2"),
        ("TEMPLATE", ")="),
        ("COMPLETION", "3<|end|>"),
    ]
    assert spans(template, template.encode(HI, 100))[:2] == [("USER", "Hi"), ("TEMPLATE", "=")]


def test_jinja_file_renders_messages(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer())
    example = chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "ok"))
    assert spans(template, template.encode(example, 100)) == [
        ("TEMPLATE", "system: "),
        ("SYSTEM", "Be kind."),
        ("TEMPLATE", "\nuser: "),
        ("USER", "Hi"),
        ("TEMPLATE", "\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_jinja_file_that_rewrites_the_prompt_is_all_the_users(tmp_path: Path) -> None:
    template = Template(jinja_file(tmp_path, "Q: {{ prompt | upper }}"), tiny_tokenizer())
    assert spans(template, template.encode(HI, 100))[0] == ("USER", "Q: HI")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ question }}", "prompt.jinja cannot be rendered: 'question' is undefined"),
        ("Q\n{{ prompt }", "prompt.jinja:2: not a valid template: unexpected '}'"),
        ("{{ prompt / 0 }}", "prompt.jinja cannot be rendered: TypeError: unsupported operand"),
        ("{{ messages[7].content }}", "prompt.jinja cannot be rendered: list object has no"),
        ("", "prompt.jinja renders an empty prompt; set data.template to"),
        ("{# nothing #}\n\n", "prompt.jinja renders an empty prompt; set data.template to"),
        ("{{ input }}", "prompt.jinja renders an empty prompt; set data.template to"),
        ("Answer:", "prompt.jinja renders the same prompt whatever prompt, instruction, input"),
        (
            "{% for m in messages %}{{ m.role }}:{% endfor %}",
            "prompt.jinja renders the same prompt whatever prompt, instruction, input",
        ),
    ],
)
def test_jinja_file_that_is_wrong_says_where(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Template(jinja_file(tmp_path, source), tiny_tokenizer()).encode(HI, 100)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("Numbers: {{ input }}.", "Numbers: ."),
        ("{% if input %}{{ input }}{% else %}Go on.{% endif %}", "Go on."),
        ("{{ messages[0].content }}", "a###b"),
        ("{{ prompt.split('###')[1] }}", "b"),
        ("{{ prompt[:1] }}", "a"),
        ("{{ prompt | length }} letters", "5 letters"),
        ("{% if prompt == 'a###b' %}this{% else %}that{% endif %} one", "this one"),
    ],
)
def test_jinja_file_may_show_any_part_of_an_example(
    tmp_path: Path, source: str, rendered: str
) -> None:
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer())
    encoded = template.encode(pair("a", prompt="a###b", completion="c"), 100)
    prompt = tokens(template, encoded)[: encoded.num_prompt_tokens]
    assert "".join(prompt) == rendered


def test_chat_template_that_fails_in_any_way_names_the_example() -> None:
    template = Template("chat", tiny_tokenizer(chat_template="{{ messages[0].content / 0 }}"))
    with pytest.raises(InputError, match="a: the chat template refuses the chat: TypeError: "):
        template.encode(HI, 100)


def test_unknown_template_lists_the_valid_ones() -> None:
    with pytest.raises(InputError) as caught:
        Template("alpacca", tiny_tokenizer())
    assert str(caught.value) == (
        "data.template must be chat, alpaca, plain or a Jinja file, got alpacca; "
        "give the path of a UTF-8 file that exists"
    )


def test_chat_needs_a_chat_template() -> None:
    with pytest.raises(InputError) as caught:
        Template("chat", tiny_tokenizer())
    assert str(caught.value) == (
        "data.template is chat, but the tokenizer has no chat template; "
        "set data.template to alpaca or plain"
    )


def test_a_tokenizer_without_end_of_sequence_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        Template("plain", tokenizer)


@pytest.mark.parametrize("name", ["plain", "alpaca"])
def test_single_turn_templates_refuse_to_lose_turns(name: str) -> None:
    template = Template(name, tiny_tokenizer())
    with pytest.raises(InputError) as caught:
        template.encode(chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "ok")), 100)
    assert str(caught.value) == (
        f"chats.jsonl:1: data.template {name} shows one user turn, but the chat has 3 messages:"
        " the others would be lost; set data.template to chat or to a Jinja file that renders"
        " `messages`"
    )


def test_a_token_over_two_spans_takes_the_role_it_starts_in(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(("a hello",) * 9, vocab_size=300)
    template = Template(jinja_file(tmp_path, "Q: {{ prompt }}"), tokenizer)
    encoded = template.encode(pair("a", prompt="hello", completion="ok"), 100)
    assert tokens(template, encoded) == ["Q", ":", " hello", "o", "k", "<|end|>"]
    assert letters(encoded) == "TTTCCC"


def test_no_token_spans_prompt_and_completion(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(("hello",) * 9, vocab_size=300)
    template = Template(jinja_file(tmp_path, "{{ prompt }}"), tokenizer)
    encoded = template.encode(pair("a", prompt="hel", completion="lo"), 100)
    assert tokenizer.tokenize("hello") == ["hello"]
    assert template.tokenizer.decode(encoded.input_ids[: encoded.num_prompt_tokens]) == "hel"
    assert template.tokenizer.decode(encoded.input_ids[encoded.num_prompt_tokens :]) == "lo<|end|>"


def test_characters_of_several_tokens_keep_their_role() -> None:
    template = Template("plain", tiny_tokenizer())
    encoded = template.encode(pair("a", prompt="é", completion="ü"), 100)
    assert letters(encoded) == "UUTTCCC"


@pytest.mark.parametrize(
    ("max_length", "kept", "roles", "num_truncated"),
    [
        (7, ["H", "i", "\n", "\n", "o", "k", "<|end|>"], "UUTTCCC", 0),
        (6, ["i", "\n", "\n", "o", "k", "<|end|>"], "UTTCCC", 1),
        (4, ["\n", "o", "k", "<|end|>"], "TCCC", 3),
        (3, ["\n", "o", "k"], "TCC", 4),
    ],
)
def test_truncation_keeps_the_completion(
    max_length: int, kept: list[str], roles: str, num_truncated: int
) -> None:
    template = Template("plain", tiny_tokenizer())
    encoded = template.encode(HI, max_length)
    assert tokens(template, encoded) == kept
    assert letters(encoded) == roles
    assert encoded.num_truncated_tokens == num_truncated


def test_start_token_stands_before_the_prompt_where_the_tokenizer_adds_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", tokenizer.bos_token_id)]
    )
    template = Template("plain", tokenizer)
    encoded = template.encode(HI, 100)
    assert tokens(template, encoded) == ["<|start|>", "H", "i", "\n", "\n", "o", "k", "<|end|>"]
    assert letters(encoded) == "TUUTTCCC"


@pytest.mark.parametrize("name", ["plain", "alpaca", "chat"])
def test_the_prompt_is_the_same_at_inference_as_in_training(name: str) -> None:
    tokenizer = tiny_tokenizer(("Say hello.\n\n",) * 9, vocab_size=300, chat_template=CHAT_TEMPLATE)
    template = Template(name, tokenizer)
    example = pair("a", prompt="Say hello.", completion="\n\nhello")
    encoded = template.encode(example, 1000)
    assert template.encode_prompt(example) == encoded.input_ids[: encoded.num_prompt_tokens]
