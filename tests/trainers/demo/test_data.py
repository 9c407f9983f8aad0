"""The demo's pairs are complete, unique, and the same in every process."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainers.data.examples import Example
from trainers.data.readers import read_examples
from trainers.data.split import split_heldout
from trainers.demo.data import python_docs
from trainers.foundation.errors import InputError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLW_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def shorts(cache: Path) -> list[Example]:
    return read_examples("demo:python-docs-short")


@pytest.fixture(scope="module")
def docs(shorts: list[Example]) -> dict[str, str]:
    return {example.completion: example.prompt for example in shorts}


def letters(text: str) -> str:
    return re.sub("[^a-z]", "", text.lower())


def test_there_are_a_few_thousand_pairs(shorts: list[Example]) -> None:
    assert 3000 < len(shorts) < 5000


def test_a_doc_in_a_source_file_has_the_qualified_name_of_its_object(docs: dict[str, str]) -> None:
    assert docs["textwrap.fill"] == (
        "Fill a single paragraph of text, returning a new string.\n\n"
        "Reformat the single paragraph in 'text' to fit in lines of no more\n"
        "than 'width' columns, and return a new string containing the entire\n"
        "wrapped paragraph.  As with wrap(), tabs are expanded and other\n"
        "whitespace characters converted to space.  See TextWrapper class for\n"
        "available keyword args to customize wrapping behaviour."
    )


def test_a_doc_in_c_has_the_public_name_of_its_object(docs: dict[str, str]) -> None:
    assert docs["str.center"] == (
        "Return a centered string of length width.\n\n"
        "Padding is done using the specified fill character (default is a space)."
    )
    assert docs["math.ldexp"] == (
        "Return x * (2**i).\n\nThis is essentially the inverse of frexp()."
    )


def test_a_signature_before_the_text_is_removed(docs: dict[str, str]) -> None:
    assert docs["textwrap.TextWrapper.wrap"].startswith("Reformat the single paragraph in 'text'")
    assert docs["bytes.islower"].startswith("Return True if all cased characters in B are")


def test_private_classes_have_their_public_name(docs: dict[str, str]) -> None:
    assert {"collections.abc.Set", "decimal.ConversionSyntax", "io.IOBase.tell"} <= docs.keys()
    assert not [name for name in docs if re.search(r"(^|\.)_", name)]


def test_every_doc_is_complete_and_within_the_length_limits(shorts: list[Example]) -> None:
    assert {example.prompt for example in shorts if not 40 <= len(example.prompt) <= 400} == set()
    assert {
        example.prompt for example in shorts if example.prompt != example.prompt.strip()
    } == set()


def test_boilerplate_docs_are_removed(shorts: list[Example]) -> None:
    starts = ("Alias for field number", "Initialize self", "Return repr(self)")
    assert [example.prompt for example in shorts if example.prompt.startswith(starts)] == []


def test_names_docs_and_ids_are_unique(shorts: list[Example]) -> None:
    assert len({example.id for example in shorts}) == len(shorts)
    assert len({example.completion for example in shorts}) == len(shorts)
    assert len({letters(example.prompt) for example in shorts}) == len(shorts)


def test_the_long_set_is_the_inverted_short_set(shorts: list[Example], cache: Path) -> None:
    longs = read_examples("demo:python-docs-long")
    assert [(e.id, e.completion, e.prompt) for e in longs] == [
        (e.id, e.prompt, e.completion) for e in shorts
    ]
    assert {e.id for e in shorts if e.id != f"python-docs:{e.completion}"} == set()


@pytest.mark.parametrize("direction", ["short", "long"])
def test_heldout_pairs_share_no_object_and_no_doc_with_the_training_pairs(
    direction: str, shorts: list[Example]
) -> None:
    examples = shorts if direction == "short" else [example.inverted() for example in shorts]
    doc_of = {example.id: letters(example.prompt) for example in shorts}
    indices = split_heldout(examples, heldout_examples=256, seed=0)
    train, heldout = ([examples[index] for index in side] for side in indices)
    assert len(heldout) == 256
    assert not {example.id for example in heldout} & {example.id for example in train}
    heldout_docs = {doc_of[example.id] for example in heldout}
    assert not heldout_docs & {doc_of[example.id] for example in train}


def test_the_pairs_are_the_same_in_a_bare_process(tmp_path: Path, shorts: list[Example]) -> None:
    code = (
        "import sys; from trainers.demo.data import python_docs; python_docs();"
        " print(sorted({'asyncio', 'idlelib', 'tkinter', 'this', 'turtle'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PLW_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    # Nothing was imported to read its docs, nothing printed; -OO keeps no docs in memory.
    assert ast.literal_eval(done.stdout) == []
    assert done.stderr == ""
    [cached] = (tmp_path / "data").iterdir()
    pairs = [json.loads(line) for line in cached.read_text(encoding="utf-8").splitlines()]
    assert pairs == [[example.completion, example.prompt] for example in shorts]


def test_the_next_call_reads_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, shorts: list[Example]
) -> None:
    [cached] = (cache / "data").iterdir()
    assert re.fullmatch(r"python-docs-cpython-3\.\d+\.\d+\w*-v1\.jsonl", cached.name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / cached.name).write_text('["a.b", "Does a thing."]\n', encoding="utf-8")
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    assert python_docs() == [("a.b", "Does a thing.")]


def test_error_names_a_cache_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError) as caught:
        python_docs()
    assert str(caught.value).endswith(
        ": the demo's data cannot be written: Not a directory; set PLW_CACHE_DIR to a writable"
        " folder"
    )
