"""Tiny checkpoints: one with random weights, one trained until it memorises four answers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evals.engine.loaded_model import LoadedModel
from evals.engine.loading import load_model
from trainers.data.examples import Example, pair
from trainers.data.roles import Role
from trainers.data.template import Template
from trainers.models.transformers_output import suppress_transformers_output

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SENTENCES = [
    "Return the square root of a number.",
    "Join two paths, one behind the other.",
    "What is the capital of France? Paris.",
    "Sort the items of a list in place.",
    "math.sqrt os.path.join list.sort",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with about 300 tokens and a chat template unlike any real one."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<pad>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        eos_token="<eos>",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # Large, so that predictions are far from uniform and arithmetic errors are visible.
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@pytest.fixture(scope="session")
def tiny_path(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: PreTrainedTokenizerFast,
    tiny_config: LlamaConfig,
) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    LlamaForCausalLM(tiny_config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def facts() -> list[Example]:
    return [
        pair("f:1", prompt="Return the square root of a number.", completion="math.sqrt"),
        pair("f:2", prompt="Join two paths.", completion="os.path.join"),
        pair("f:3", prompt="What is the capital of France?", completion="Paris."),
        pair("f:4", prompt="Sort the items of a list in place.", completion="list.sort"),
    ]


@pytest.fixture(scope="session")
def taught_path(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: PreTrainedTokenizerFast,
    tiny_config: LlamaConfig,
    facts: list[Example],
) -> Path:
    """A model trained on `facts` and their inversions until it reproduces all of them."""
    template = Template("plain", tokenizer)
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_config).train()
    rows = [template.encode(example, 64) for fact in facts for example in (fact, fact.inverted())]
    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.tensor([row.input_ids + [0] * (width - len(row.input_ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.roles) + [0] * (width - len(row.roles)) for row in rows])
    learned = torch.tensor(
        [[int(r == Role.COMPLETION) for r in row.roles] + [0] * (width - len(row.roles))
         for row in rows]
    )  # fmt: skip
    labels = input_ids.masked_fill(learned == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    path = tmp_path_factory.mktemp("checkpoints") / "taught"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


Load = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def load() -> Load:
    """Load a checkpoint, by default with template plain and 128 tokens."""

    def loaded(path: Path, template: str = "plain", max_length: int = 128) -> LoadedModel:
        with suppress_transformers_output():
            return load_model(path, template=template, max_length=max_length)

    return loaded


@pytest.fixture(scope="session")
def tiny(load: Load, tiny_path: Path) -> LoadedModel:
    return load(tiny_path)


@pytest.fixture(scope="session")
def tiny_chat(load: Load, tiny_path: Path) -> LoadedModel:
    return load(tiny_path, "chat")


@pytest.fixture(scope="session")
def taught(load: Load, taught_path: Path) -> LoadedModel:
    return load(taught_path)
