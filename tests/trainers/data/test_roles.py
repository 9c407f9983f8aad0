"""Every token of a rendered example has the role of its text."""

from itertools import groupby
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import Example, Message, pair
from trainers.data.roles import EncodedExample, Role
from trainers.data.template import Template
from trainers.foundation.errors import InputError

HI = pair("a", prompt="Hi", completion="ok")


def letters(encoded: EncodedExample) -> str:
    """Return one letter for each token: Padding, System, User, Template, Completion."""
    return "".join("PSUTC"[role] for role in encoded.roles)


def tokens(template: Template, encoded: EncodedExample) -> list[str]:
    shown = template.tokenizer.convert_ids_to_tokens(encoded.input_ids)
    return [token.replace("Ċ", "\n").replace("Ġ", " ") for token in shown]


def spans(template: Template, encoded: EncodedExample) -> list[tuple[str, str]]:
    """Return (role, text) of each run of tokens with one role."""
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


def test_plain_renders_the_prompt_and_a_blank_line() -> None:
    template = Template("plain", tiny_tokenizer())
    encoded = template.encode(HI, 100)
    assert tokens(template, encoded) == ["H", "i", "\n", "\n", "o", "k", "<|end|>"]
    assert letters(encoded) == "UUTTCCC"
    assert (encoded.num_prompt_tokens, encoded.num_completion_tokens) == (4, 3)
    assert encoded.num_truncated_tokens == 0


def test_alpaca_without_input_equals_stanfords_template() -> None:
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


def test_alpaca_with_input_separates_instruction_and_input() -> None:
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


def test_alpaca_uses_the_prompt_of_other_records_as_instruction() -> None:
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


def test_chat_includes_earlier_answers_in_the_prompt() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    example = chat(("user", "Hi"), ("assistant", "Ho"), ("user", "Hi"), ("assistant", "ok"))
    assert spans(template, template.encode(example, 1000))[1:] == [
        ("USER", "Hi"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("HISTORY", "Ho"),
        ("TEMPLATE", "<|end|>\n<|start|>user\n"),
        ("USER", "Hi"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_chat_locates_a_text_that_also_occurs_in_the_template() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    example = pair("a", prompt="help", completion="ok")
    assert spans(template, template.encode(example, 1000)) == [
        ("TEMPLATE", "<|start|>system\nYou help.<|end|>\n<|start|>user\n"),
        ("USER", "help"),
        ("TEMPLATE", "<|end|>\n<|start|>assistant\n"),
        ("COMPLETION", "ok<|end|>"),
    ]


def test_chat_supports_a_template_that_trims() -> None:
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
            "a: the chat template does not show the answer's text unchanged; set data.template to a"
            " Jinja file that renders `messages` for training, to alpaca or to plain",
        ),
        (
            "{{ raise_exception('no system turn, please') }}",
            "a: the chat template rejects the chat: no system turn, please; set data.template to a"
            " Jinja file that renders `messages` for training, to alpaca or to plain",
        ),
    ],
)
def test_error_names_the_example_that_the_template_rejects(source: str, message: str) -> None:
    template = Template("chat", tiny_tokenizer(chat_template=source))
    with pytest.raises(InputError) as caught:
        template.encode(HI, 100)
    assert str(caught.value) == message


def test_chat_template_that_omits_a_message_is_rejected() -> None:
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}|{% endfor %}"
    template = Template("chat", tiny_tokenizer(chat_template=source))
    with pytest.raises(InputError, match=r'does not show the text of a message: "Be kind\."'):
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


def test_prompt_has_role_user_if_a_jinja_file_changes_the_texts(tmp_path: Path) -> None:
    template = Template(jinja_file(tmp_path, "Q: {{ prompt | upper }}"), tiny_tokenizer())
    assert spans(template, template.encode(HI, 100))[0] == ("USER", "Q: HI")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ question }}", "prompt.jinja cannot be rendered: 'question' is undefined"),
        ("Q\n{{ prompt }", "prompt.jinja:2: not a valid template: unexpected '}'"),
        ("{{ prompt / 0 }}", "prompt.jinja cannot be rendered: TypeError: unsupported operand"),
        ("{{ messages[7].content }}", "prompt.jinja cannot be rendered: list object has no"),
        ("", "prompt.jinja renders an empty prompt; correct the template"),
        ("{# nothing #}\n\n", "prompt.jinja renders an empty prompt; correct the template"),
        ("{{ input }}", "prompt.jinja renders an empty prompt; correct the template"),
        ("Answer:", "prompt.jinja renders the same prompt for every prompt, instruction, input"),
        (
            "{% for m in messages %}{{ m.role }}:{% endfor %}",
            "prompt.jinja renders the same prompt for every prompt, instruction, input",
        ),
    ],
)
def test_error_in_a_jinja_file_names_the_line(tmp_path: Path, source: str, message: str) -> None:
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
def test_jinja_file_may_render_any_part_of_an_example(
    tmp_path: Path, source: str, rendered: str
) -> None:
    template = Template(jinja_file(tmp_path, source), tiny_tokenizer())
    encoded = template.encode(pair("a", prompt="a###b", completion="c"), 100)
    prompt = tokens(template, encoded)[: encoded.num_prompt_tokens]
    assert "".join(prompt) == rendered


def test_error_names_the_example_for_any_error_in_a_chat_template() -> None:
    template = Template("chat", tiny_tokenizer(chat_template="{{ messages[0].content / 0 }}"))
    with pytest.raises(InputError, match="a: the chat template rejects the chat: TypeError: "):
        template.encode(HI, 100)


def test_unknown_template_lists_the_valid_ones() -> None:
    with pytest.raises(InputError) as caught:
        Template("alpacca", tiny_tokenizer())
    assert str(caught.value) == (
        "data.template must be chat, alpaca, plain, chatml-tools, deepseek-r1 or a Jinja"
        " file, got alpacca; "
        "use the path of an existing UTF-8 file"
    )


def test_chat_needs_a_chat_template() -> None:
    with pytest.raises(InputError) as caught:
        Template("chat", tiny_tokenizer())
    assert str(caught.value) == (
        "data.template is chat, but the tokenizer has no chat template; "
        "set data.template to a chat template in a Jinja file, or, for records with one question "
        "and one answer, to alpaca or plain"
    )


def test_a_tokenizer_without_end_of_sequence_is_rejected() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        Template("plain", tokenizer)


@pytest.mark.parametrize("name", ["plain", "alpaca"])
def test_single_turn_templates_reject_chats_with_more_turns(name: str) -> None:
    template = Template(name, tiny_tokenizer())
    with pytest.raises(InputError) as caught:
        template.encode(chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "ok")), 100)
    assert str(caught.value) == (
        f"chats.jsonl:1: data.template {name} renders one user turn, but the chat has 3 messages:"
        " the others would be lost; put the system text into the user turn, or set data.template"
        " to a chat template in a Jinja file"
    )


@pytest.mark.parametrize(
    ("chat_template", "advice"),
    [
        (None, "set data.template to a chat template in a Jinja file"),
        (CHAT_TEMPLATE, "set data.template to chat or to a chat template in a Jinja file"),
    ],
)
def test_chat_is_advised_only_if_the_tokenizer_has_a_chat_template(
    chat_template: str | None, advice: str
) -> None:
    turns = [("user", "Hi"), ("assistant", "ok"), ("user", "Ho"), ("assistant", "ok")]
    template = Template("plain", tiny_tokenizer(chat_template=chat_template))
    with pytest.raises(InputError) as caught:
        template.encode(chat(*turns), 100)
    assert caught.value.problems[0].fix == advice


def test_single_turn_templates_are_not_advised_for_longer_chats(tmp_path: Path) -> None:
    template = Template(jinja_file(tmp_path, "{{ missing.name }}"), tiny_tokenizer())
    turns = [("user", "Hi"), ("assistant", "ok"), ("user", "Ho"), ("assistant", "ok")]
    for example, advice in (
        (chat(*turns), "correct the template"),
        (chat(*turns[:2]), "correct the template, or set data.template to alpaca or plain"),
    ):
        with pytest.raises(InputError) as caught:
            template.encode(example, 100)
        assert caught.value.problems[0].fix == advice


def test_a_token_over_two_spans_has_the_role_at_its_start(tmp_path: Path) -> None:
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
        # The completion has no space for its end.
        (4, ["i", "\n", "\n", "o"], "UTTC", 3),
        (3, ["\n", "o", "k"], "TCC", 4),
    ],
)
def test_truncation_for_scoring_keeps_text_template_and_completion(
    max_length: int, kept: list[str], roles: str, num_truncated: int
) -> None:
    template = Template("plain", tiny_tokenizer())
    encoded = template.encode(HI, max_length)
    assert tokens(template, encoded) == kept
    assert letters(encoded) == roles
    assert encoded.num_truncated_tokens == num_truncated


def test_start_token_precedes_the_prompt_if_the_tokenizer_adds_one() -> None:
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
