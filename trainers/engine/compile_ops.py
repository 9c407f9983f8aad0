"""Compile DeepSpeed's operations in advance: `python -m trainers.engine.compile_ops`.

Otherwise, DeepSpeed compiles them at their first use. On a CPU, there is one shared-memory
operation, which takes about a minute to compile and is then cached. On CUDA, there is nothing to
compile.
"""

import sys
import time


def main() -> int:
    """Compile or load the operation, print the time, and return the exit code."""
    started = time.monotonic()
    from trainers.engine.zero import load_cpu_op

    if not load_cpu_op():
        print("no operation to compile on this device")
    else:
        print(f"CPU operation loads ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
