"""The fingerprint of a trial's data, cached: computing it reads the texts of all examples."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from orchestrator.plan import fingerprint
from trainers.data.example_store import StoredExamples
from trainers.data.examples import Example
from trainers.foundation.file_cache import CorruptFileError, load_or_write
from trainers.foundation.files import read_json, sha256_file, write_json


@dataclass(frozen=True, kw_only=True)
class DataFingerprint:
    """The fingerprint of examples, and whether some have weights, tools or reasoning."""

    fingerprint: str
    has_extras: bool


def fingerprint_data(train: Sequence[Example], heldout: Sequence[Example]) -> DataFingerprint:
    """Return the fingerprint of training and held-out examples.

    That of stored examples is computed once on this machine for each version of the code.

    Raises:
        InputError: PLW_CACHE_DIR is not writable.
    """
    if not (isinstance(train, StoredExamples) and isinstance(heldout, StoredExamples)):
        return _compute(train, heldout)
    code = sha256_file(Path(fingerprint.__file__))
    inputs = json.dumps([code, train.digest, heldout.digest])
    stored = load_or_write(
        f"fingerprints/{hashlib.sha256(inputs.encode()).hexdigest()}.json",
        content="fingerprint",
        read=_read,
        write=lambda path: write_json(path, asdict(_compute(train, heldout))),
    )
    return _compute(train, heldout) if stored is None else stored


def _compute(train: Sequence[Example], heldout: Sequence[Example]) -> DataFingerprint:
    return DataFingerprint(
        fingerprint=fingerprint.fingerprint_examples(chain(train, heldout)),
        has_extras=any(example.extras is not None for example in chain(train, heldout)),
    )


def _read(path: Path) -> DataFingerprint:
    try:
        return DataFingerprint(**read_json(path))
    except (ValueError, TypeError) as error:
        raise CorruptFileError(str(error)) from error
