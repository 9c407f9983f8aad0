"""N-gram overlap of evaluation items with the training data.

An item overlaps if an n-gram of 13 of its words also occurs in the training data. An item of 8 to
12 words overlaps if all its words occur there in a row. Punctuation, white space and letter case
are ignored. N-grams in more than 10 training documents are ignored, too.

Source: Brown et al. 2020, Language Models are Few-Shot Learners (arXiv 2005.14165), section 4 and
appendix C. Deviations: the paper's n is the 5th percentile of a benchmark's lengths, but here it
depends on each item. Here, an item of any length also overlaps if it, or its prompt, equals that of
a training example.
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
MIN_NGRAM_WORDS = 8
# An n-gram in more training examples than this is a template or a phrase, not an item.
MAX_EXAMPLES = 10

# Each Chinese or Japanese character counts as a word, because these languages use no spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_SEPARATORS = str.maketrans({chr(n): " " for n in range(128) if not chr(n).isalnum()})
# Number of training examples per chunk: a few million words, a few tens of MiB.
_CHUNK = 10_000
_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE_HASH_BASE = np.uint64(pow(int(_HASH_BASE), -1, 2**64))
# Bits of a hash that index a bitmap, which rejects nearly all n-grams that no item contains.
_FILTER_BITS = 22
_FILTER_SHIFT = np.uint64(64 - _FILTER_BITS)

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ItemText:
    """The prompt and the completion of an item, without a template."""

    prompt: str
    completion: str


def item_text(example: Example) -> ItemText:
    """Return the text of `example` without system messages, which many examples share."""
    turns = [message.content for message in example.messages[:-1] if message.role != "system"]
    return ItemText(prompt="\n".join(turns), completion=example.completion)


def words(text: str) -> list[str]:
    """Return the lower-case words of `text` without punctuation."""
    if text.isascii():
        # This has the same result and is several times faster.
        return text.lower().translate(_SEPARATORS).split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def find_overlaps(items: Sequence[ItemText], training: Iterable[Example]) -> list[bool]:
    """Return for each item whether it overlaps one of the `training` examples."""
    item_words = [_ItemWords.from_text(item) for item in items]
    index = _NgramIndex([item.words for item in item_words])
    item_keys = {item.key for item in item_words} - {""}
    prompt_keys = {item.prompt_key for item in item_words} - {""}
    found_keys: set[str] = set()
    num_prompts: Counter[str] = Counter()
    num_examples = np.zeros(index.num_ngrams, dtype=np.int64)
    for chunk in _chunks(training):
        found_keys |= {example.key for example in chunk} & item_keys
        num_prompts.update(e.prompt_key for e in chunk if e.prompt_key in prompt_keys)
        found = index.find([example.words for example in chunk])
        num_examples += np.bincount(found, minlength=index.num_ngrams)
    has_ngram = index.items_with((num_examples > 0) & (num_examples <= MAX_EXAMPLES))
    return [
        bool(has) or item.key in found_keys or 0 < num_prompts[item.prompt_key] <= MAX_EXAMPLES
        for item, has in zip(item_words, has_ngram, strict=True)
    ]


@dataclass(frozen=True)
class _ItemWords:
    """The words of an item or example, and its normalised text for exact comparison."""

    words: list[str]
    key: str
    prompt_key: str

    @classmethod
    def from_text(cls, item: ItemText) -> "_ItemWords":
        prompt = words(item.prompt)
        all_words = prompt + words(item.completion)
        return cls(all_words, " ".join(all_words), " ".join(prompt))


def _chunks(training: Iterable[Example]) -> Iterator[list[_ItemWords]]:
    examples = iter(training)
    while chunk := [
        _ItemWords.from_text(item_text(example)) for example in islice(examples, _CHUNK)
    ]:
        yield chunk


class _NgramHashes:
    """Rolling hashes of the n-grams of texts.

    An n-gram's hash is a polynomial in one random number per word, modulo 2^64. No collision is
    expected among a billion n-grams.

    Args:
        ids: the id of each known word, from 1; id 0 stands for every other word.
        values: the random number (64 bits) of each id.
    """

    def __init__(self, texts: Sequence[list[str]], ids: Mapping[str, int], values: Hashes) -> None:
        num_words = np.array([len(text) for text in texts], dtype=np.int64)
        total = int(num_words.sum())
        flat = chain.from_iterable(map(ids.get, text, repeat(0)) for text in texts)
        word_ids = np.fromiter(flat, np.int64, total)
        self._owners = np.repeat(np.arange(len(texts), dtype=np.int64), num_words)
        # Sums of v_j B^j up to each word. An n-gram's hash is the difference of two sums, shifted
        # back to B^0.
        self._shifts = np.cumprod(np.full(total, _INVERSE_HASH_BASE), dtype=np.uint64)
        powers = np.cumprod(np.full(total, _HASH_BASE), dtype=np.uint64)
        self._sums = np.zeros(total + 1, dtype=np.uint64)
        np.cumsum(values[word_ids] * powers, dtype=np.uint64, out=self._sums[1:])
        self._num_unknown = np.zeros(total + 1, dtype=np.int64)
        np.cumsum(word_ids == 0, out=self._num_unknown[1:])

    def hashes(self, length: int) -> tuple[Hashes, Ints]:
        """Return the hash of each n-gram of `length` known words, and the index of its text."""
        if len(self._owners) < length:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        owners = self._owners
        is_ngram = owners[length - 1 :] == owners[: len(owners) - length + 1]
        is_ngram &= self._num_unknown[length:] == self._num_unknown[:-length]
        starts = np.flatnonzero(is_ngram)
        hashes = (self._sums[starts + length] - self._sums[starts]) * self._shifts[starts]
        # The length is part of the hash. Otherwise, an n-gram could match an item without n-grams
        # of that length.
        return hashes * np.uint64(2 * length + 1), owners[starts]


class _NgramIndex:
    """An index of the items' n-grams, used to find them in other texts."""

    def __init__(self, items: Sequence[list[str]]) -> None:
        vocabulary = dict.fromkeys(word for item in items for word in item)
        self._ids = {word: id for id, word in enumerate(vocabulary, start=1)}
        random = np.random.default_rng(0)
        self._values = random.integers(0, 2**64, len(self._ids) + 1, dtype=np.uint64)
        self._num_items = len(items)
        lengths = np.array([min(len(item), NGRAM_WORDS) for item in items], dtype=np.int64)
        self._lengths = sorted({int(n) for n in lengths if n >= MIN_NGRAM_WORDS})
        ngrams = _NgramHashes(items, self._ids, self._values)
        hashes, owners = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
        for length in self._lengths:
            found, item_indices = ngrams.hashes(length)
            has_length = lengths[item_indices] == length
            hashes.append(found[has_length])
            owners.append(item_indices[has_length])
        self._owners = np.concatenate(owners)
        self._sorted, self._ngrams = np.unique(np.concatenate(hashes), return_inverse=True)
        self._filter = np.zeros(2**_FILTER_BITS, dtype=np.bool_)
        self._filter[self._sorted >> _FILTER_SHIFT] = True

    @property
    def num_ngrams(self) -> int:
        """Return the number of distinct n-grams of the items."""
        return len(self._sorted)

    def find(self, texts: Sequence[list[str]]) -> Ints:
        """Return the indices of the n-grams in `texts`, once for every text that contains one."""
        ngrams = _NgramHashes(texts, self._ids, self._values)
        keys: list[Ints] = [np.zeros(0, dtype=np.int64)]
        for length in self._lengths:
            hashes, owners = ngrams.hashes(length)
            # Search only for the few n-grams that pass the filter.
            passes_filter = self._filter[hashes >> _FILTER_SHIFT]
            hashes, owners = hashes[passes_filter], owners[passes_filter]
            positions = np.searchsorted(self._sorted, hashes).clip(max=self.num_ngrams - 1)
            is_found = self._sorted[positions] == hashes
            keys.append(positions[is_found] * len(texts) + owners[is_found])
        return np.unique(np.concatenate(keys)) // max(1, len(texts))

    def items_with(self, marked: Flags) -> Flags:
        """Return which items have at least one of the marked n-grams."""
        has = np.zeros(self._num_items, dtype=np.bool_)
        has[self._owners[marked[self._ngrams]]] = True
        return has
