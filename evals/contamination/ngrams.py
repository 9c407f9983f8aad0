"""Which items of a measure stand in the training data, so that knowing them proves little.

Source: Brown et al. 2020, Language Models are Few-Shot Learners (arXiv 2005.14165), section 4 and
appendix C: an item overlaps if 13 words in a row stand in the training data too, or all of it
where it is shorter, down to 8 words; punctuation, white space and letter case do not count, nor
what stands in more than 10 training documents. Deviations: their N is the 5th percentile of a
benchmark's lengths, here each item has its own; and an item, or its prompt, that equals a
training example's is found however short it is.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

import numpy as np
from numpy.typing import NDArray

from trainers.data.examples import Example

NGRAM_WORDS = 13
FEWEST_WORDS = 8
# What stands in more training examples than these is a template or a phrase, not an item.
MAX_EXAMPLES = 10

# A sign of Chinese or Japanese is a word: those texts have no spaces.
_SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_SIGN}]|[^\W_{_SIGN}]+")
_SEPARATORS = str.maketrans({chr(n): " " for n in range(128) if not chr(n).isalnum()})
# Training examples looked at together: some million words, a few tens of MiB.
_CHUNK = 10_000
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE_BASE = np.uint64(pow(int(_BASE), -1, 2**64))
# A bitmap of so many bits' worth of hashes sorts out nearly all that no item has.
_FILTER_BITS = 22
_FILTER_SHIFT = np.uint64(64 - _FILTER_BITS)

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ItemText:
    """What an item asks and what it wants for an answer, without any template around them."""

    prompt: str
    completion: str


def item_text(example: Example) -> ItemText:
    """The text of `example`. System messages are left out: many examples share one."""
    turns = [message.content for message in example.messages[:-1] if message.role != "system"]
    return ItemText(prompt="\n".join(turns), completion=example.completion)


def words(text: str) -> list[str]:
    """The words of `text` without letter case and punctuation."""
    if text.isascii():
        # The same, several times as fast.
        return text.lower().translate(_SEPARATORS).split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def find_overlaps(items: Sequence[ItemText], training: Iterable[Example]) -> list[bool]:
    """For each of `items` whether it overlaps one of the `training` examples."""
    split = [_Split.of(item) for item in items]
    index = _Index([item.whole for item in split])
    wholes = {item.whole_key for item in split} - {""}
    prompts = {item.prompt_key for item in split} - {""}
    seen_wholes: set[str] = set()
    num_prompts: Counter[str] = Counter()
    num_examples = np.zeros(index.num_ngrams, dtype=np.int64)
    for chunk in _chunks(training):
        seen_wholes |= {example.whole_key for example in chunk} & wholes
        num_prompts.update(e.prompt_key for e in chunk if e.prompt_key in prompts)
        found = index.find([example.whole for example in chunk])
        num_examples += np.bincount(found, minlength=index.num_ngrams)
    has_ngram = index.items_with((num_examples > 0) & (num_examples <= MAX_EXAMPLES))
    return [
        bool(has)
        or item.whole_key in seen_wholes
        or 0 < num_prompts[item.prompt_key] <= MAX_EXAMPLES
        for item, has in zip(split, has_ngram, strict=True)
    ]


@dataclass(frozen=True)
class _Split:
    """The words of an item or example, and its texts as they are compared whole."""

    whole: list[str]
    whole_key: str
    prompt_key: str

    @classmethod
    def of(cls, item: ItemText) -> "_Split":
        prompt = words(item.prompt)
        whole = prompt + words(item.completion)
        return cls(whole, " ".join(whole), " ".join(prompt))


def _chunks(training: Iterable[Example]) -> Iterator[list[_Split]]:
    examples = iter(training)
    while chunk := [_Split.of(item_text(example)) for example in islice(examples, _CHUNK)]:
        yield chunk


class _Runs:
    """Texts as numbers, one behind the other, and the hashes of runs of words within them.

    A run's hash is a polynomial in a random number for each word, modulo 2^64: among a billion
    runs one that is taken for another is not to be expected.

    Args:
        ids: a number for each known word, from 1; word 0 stands for all others.
        values: the random number (64 bits) of each word.
    """

    def __init__(self, texts: Sequence[list[str]], ids: Mapping[str, int], values: Hashes) -> None:
        num_words = np.array([len(text) for text in texts], dtype=np.int64)
        total = int(num_words.sum())
        flat = chain.from_iterable(map(ids.get, text, repeat(0)) for text in texts)
        word_ids = np.fromiter(flat, np.int64, total)
        self._owners = np.repeat(np.arange(len(texts), dtype=np.int64), num_words)
        # The sum of v_j B^j up to each word: a run is a difference of two, shifted back to B^0.
        self._shifts = np.cumprod(np.full(total, _INVERSE_BASE), dtype=np.uint64)
        powers = np.cumprod(np.full(total, _BASE), dtype=np.uint64)
        self._sums = np.zeros(total + 1, dtype=np.uint64)
        np.cumsum(values[word_ids] * powers, dtype=np.uint64, out=self._sums[1:])
        self._num_unknown = np.zeros(total + 1, dtype=np.int64)
        np.cumsum(word_ids == 0, out=self._num_unknown[1:])

    def hashes(self, length: int) -> tuple[Hashes, Ints]:
        """The hash of each run of `length` known words within a text, and that text's index."""
        if len(self._owners) < length:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        owners = self._owners
        is_run = owners[length - 1 :] == owners[: len(owners) - length + 1]
        is_run &= self._num_unknown[length:] == self._num_unknown[:-length]
        starts = np.flatnonzero(is_run)
        hashes = (self._sums[starts + length] - self._sums[starts]) * self._shifts[starts]
        # Else a run of words would be found where no item has one of that length.
        return hashes * np.uint64(2 * length + 1), owners[starts]


class _Index:
    """The n-grams of items, to be found in other texts."""

    def __init__(self, items: Sequence[list[str]]) -> None:
        vocabulary = dict.fromkeys(word for item in items for word in item)
        self._ids = {word: id for id, word in enumerate(vocabulary, start=1)}
        random = np.random.default_rng(0)
        self._values = random.integers(0, 2**64, len(self._ids) + 1, dtype=np.uint64)
        self._num_items = len(items)
        lengths = np.array([min(len(item), NGRAM_WORDS) for item in items], dtype=np.int64)
        self._lengths = sorted({int(n) for n in lengths if n >= FEWEST_WORDS})
        runs = _Runs(items, self._ids, self._values)
        hashes, owners = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
        for length in self._lengths:
            found, of_item = runs.hashes(length)
            is_sought = lengths[of_item] == length
            hashes.append(found[is_sought])
            owners.append(of_item[is_sought])
        self._owners = np.concatenate(owners)
        self._sorted, self._ngrams = np.unique(np.concatenate(hashes), return_inverse=True)
        self._filter = np.zeros(2**_FILTER_BITS, dtype=np.bool_)
        self._filter[self._sorted >> _FILTER_SHIFT] = True

    @property
    def num_ngrams(self) -> int:
        """How many different n-grams the items have."""
        return len(self._sorted)

    def find(self, texts: Sequence[list[str]]) -> Ints:
        """The indices of the n-grams that `texts` have, each once for every text that has it."""
        runs = _Runs(texts, self._ids, self._values)
        keys: list[Ints] = [np.zeros(0, dtype=np.int64)]
        for length in self._lengths:
            hashes, owners = runs.hashes(length)
            # Few pass the filter, and only those are worth a search.
            is_likely = self._filter[hashes >> _FILTER_SHIFT]
            hashes, owners = hashes[is_likely], owners[is_likely]
            places = np.searchsorted(self._sorted, hashes).clip(max=self.num_ngrams - 1)
            is_found = self._sorted[places] == hashes
            keys.append(places[is_found] * len(texts) + owners[is_found])
        return np.unique(np.concatenate(keys)) // max(1, len(texts))

    def items_with(self, ngrams: Flags) -> Flags:
        """Which items have at least one of the n-grams that are marked."""
        has = np.zeros(self._num_items, dtype=np.bool_)
        has[self._owners[ngrams[self._ngrams]]] = True
        return has
