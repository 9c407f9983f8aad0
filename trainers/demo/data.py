"""The demo's data: the documentation strings of Python's standard library.

The library's source files are parsed, not imported. So no module can print, open a window or need a
missing C library, and functions for other platforms are included. Objects without Python source
(`str.center`, `math.gcd`) are read from C modules that every build of CPython contains.

Limits: the pairs differ between Python versions, including patch releases. A distribution that
patches a docstring changes a pair. Modules that some distributions package separately are excluded.
"""

import ast
import importlib
import inspect
import json
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text
from trainers.foundation.jsonl import read_jsonl

Doc = tuple[str, str]  # (qualified name, documentation)

# Part of the cache's file name: increase it when a change below changes the pairs.
FORMAT_VERSION = 1

# Limits in characters, both inclusive. A shorter doc does not identify its object. A longer doc is
# skipped instead of truncated, so that every pair is complete.
MIN_CHARACTERS = 40
MAX_CHARACTERS = 400

# A complete library has over 3000 pairs. Far fewer pairs mean that its sources are missing.
_MIN_PAIRS = 1000

_SKIPPED_MODULES = frozenset(
    {
        # Some distributions package these separately, so they are missing on some machines.
        *("ctypes", "distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtle"),
        *("turtledemo", "venv"),
        # Windows variants of posixpath and urllib.request, with the same docs.
        *("ntpath", "nturl2path"),
        # Data tables, and modules that are jokes.
        *("antigravity", "encodings", "pydoc_data", "this"),
        # Distributions patch these to add their own folders.
        *("site", "sysconfig"),
    }
)

# Private modules whose classes and functions are public in another module.
_PUBLIC_NAMES = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_weakrefset": "weakref",
    "concurrent.futures._base": "concurrent.futures",
    "pathlib._local": "pathlib",
}

# Modules written wholly or partly in C that need no external library and run on every platform.
_C_MODULES = (
    *("builtins", "array", "binascii", "cmath", "codecs", "collections", "contextvars"),
    *("datetime", "decimal", "functools", "gc", "io", "itertools", "marshal", "math", "operator"),
    *("pickle", "random", "re", "struct", "types", "unicodedata", "weakref"),
)


def python_docs() -> list[Doc]:
    """Return (name, documentation) pairs ordered by name, the same in every call.

    Names are unique. Docs are unique, too, ignoring case, digits, punctuation and white space.

    Raises:
        InputError: this Python has no sources of its library, or the cache folder is not writable.
    """
    cached = cache_dir() / "data" / f"python-docs-{_python()}-v{FORMAT_VERSION}.jsonl"
    if not cached.exists():
        _write_cache(cached, _collect())
    return [(name, doc) for name, doc in read_jsonl(cached, list)]


def _python() -> str:
    return f"{sys.implementation.name}-{platform.python_version()}"


def _write_cache(path: Path, docs: list[Doc]) -> None:
    lines = [json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs]
    try:
        write_text(path, "".join(lines))
    except OSError as error:
        raise InputError(
            Problem(
                message=f"the demo's data cannot be written: {error.strerror}",
                where=str(path),
                fix="set PLW_CACHE_DIR to a writable folder",
            )
        ) from None


def _collect() -> list[Doc]:
    """Return all pairs of this Python version, ordered by name."""
    docs = _unique([*_docs_in_sources(), *_docs_in_c_modules()])
    if len(docs) < _MIN_PAIRS:
        raise InputError(
            Problem(
                message=(
                    f"the demo needs {_MIN_PAIRS} docs of Python's standard library, but this"
                    f" Python has {len(docs)}: its source files seem to be missing"
                ),
                where=sysconfig.get_path("stdlib"),
                fix="use a Python with its library's .py files",
            )
        )
    return docs


def _unique(docs: Iterable[Doc]) -> list[Doc]:
    """Return the usable docs, one per name and per text.

    The first doc of a name is used. Of several objects with the same doc, the one with the shortest
    name is kept.
    """
    doc_of: dict[str, str] = {}
    for name, text in docs:
        if any(part.startswith("_") for part in name.split(".")):
            continue
        doc = _without_signature(name, inspect.cleandoc(text)).strip()
        if MIN_CHARACTERS <= len(doc) <= MAX_CHARACTERS and not _is_boilerplate(doc):
            doc_of.setdefault(name, doc)
    name_of: dict[str, str] = {}
    for name in sorted(doc_of, key=lambda name: (name.count("."), len(name), name)):
        name_of.setdefault(_letters(doc_of[name]), name)
    return [(name, doc_of[name]) for name in sorted(name_of.values())]


def _letters(doc: str) -> str:
    return re.sub(r"[^a-z]", "", doc.lower())


def _is_boilerplate(doc: str) -> bool:
    return doc.startswith(
        ("Alias for field number", "Initialize self", "Create and return a new object")
    )


def _without_signature(name: str, doc: str) -> str:
    """Return `doc` without leading lines that only show the signature of `name`.

    Lines such as `S.find(sub[, start]) -> int` reveal the answer. A doc that consists of such lines
    becomes empty. A line that also explains the call is kept.
    """
    last = re.escape(name.rsplit(".", 1)[-1])
    returned = r"-{1,2}>\s*(?:\([^()]*\)|[^,.:;()-]{1,30})\.?"
    call = re.compile(rf"(?:async )?(?:\w+\.)*{last}\s*\([^()]*\)\s*(?:{returned})?")
    lines = doc.split("\n")
    while lines and (not lines[0].strip() or call.fullmatch(lines[0].strip())):
        lines.pop(0)
    return "\n".join(lines)


def _docs_in_sources() -> Iterator[Doc]:
    library = Path(sysconfig.get_path("stdlib"))
    for top_level in sorted(sys.stdlib_module_names - _SKIPPED_MODULES):
        for path in (library / f"{top_level}.py", *sorted((library / top_level).rglob("*.py"))):
            module = _module_name(path.relative_to(library))
            if {"test", "tests", "__main__"}.isdisjoint(module.split(".")) and path.exists():
                yield from _docs_in_source(path, _PUBLIC_NAMES.get(module, module))


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _docs_in_source(path: Path, module: str) -> Iterator[Doc]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Old modules contain invalid escapes.
        tree = ast.parse(path.read_bytes())
    yield module, ast.get_docstring(tree) or ""
    yield from _docs_in_body(tree.body, module)


def _docs_in_body(body: Iterable[ast.AST], prefix: str) -> Iterator[Doc]:
    """Yield the docs of classes and functions with a dotted name; nested functions are excluded."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}"
            yield name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                yield from _docs_in_body(node.body, name)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _docs_in_body(ast.iter_child_nodes(node), prefix)


def _docs_in_c_modules() -> Iterator[Doc]:
    for module_name in _C_MODULES:
        module = importlib.import_module(module_name)
        prefix = "" if module_name == "builtins" else f"{module_name}."
        for value in vars(module).values():
            if not inspect.isbuiltin(value) and not _is_c_type(value):
                continue
            home = getattr(value, "__module__", None)
            # Use the name in the defining module, not a name under which it was imported elsewhere.
            if home not in (module_name, f"_{module_name}", None):
                continue
            name = value.__qualname__
            if getattr(module, name, None) is not value:
                continue
            yield prefix + name, value.__doc__ or ""
            if isinstance(value, type):
                for member_name, member in vars(value).items():
                    if _is_in_c(member):
                        yield f"{prefix}{name}.{member_name}", member.__doc__ or ""


def _is_c_type(value: object) -> bool:
    # Python classes have this attribute; their docs come from the source files.
    return isinstance(value, type) and all(
        "__weakref__" not in vars(base) for base in value.__mro__
    )


def _is_in_c(member: object) -> bool:
    """Return whether a class member is a method or attribute written in C.

    The docs of Python code come from the source files. Other values only have the doc of their
    type.
    """
    inner = getattr(member, "__func__", member)  # Unwrap a class method or static method.
    if inspect.isfunction(inner) or isinstance(member, property):
        return False
    return inspect.isroutine(inner) or inspect.isdatadescriptor(member)
