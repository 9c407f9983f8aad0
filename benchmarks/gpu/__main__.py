"""Command line: `python -m benchmarks.gpu --out DIR`; see docs/gpu.md."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.runner import Runner
from benchmarks.gpu.sections import SECTIONS


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    shown = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Check and measure training on one GPU. Results are written after each row.",
    )
    shown.add_argument("--out", type=Path, required=True, help="folder of the results")
    shown.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    shown.add_argument("--small", action="store_true", help="tiny shapes, to try the code on a CPU")
    shown.add_argument("--sections", nargs="+", choices=tuple(SECTIONS), default=tuple(SECTIONS))
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections; return 1 if one failed or missed a target."""
    options = parser().parse_args(arguments)
    runner = Runner(options.out, options.device, is_small=options.small)
    runner.run([SECTIONS[name] for name in options.sections])
    print((options.out / "results.md").read_text(encoding="utf-8"))
    return int(any(result.has_failed for result in runner.results))


if __name__ == "__main__":
    sys.exit(main())
