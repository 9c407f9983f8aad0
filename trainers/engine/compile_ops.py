"""`python -m trainers.engine.compile_ops`: compile what DeepSpeed would compile on first use.

On a CPU that is one shared-memory operation, about a minute; afterwards it is cached and loads
at once. On CUDA nothing needs to be compiled for what we use.
"""

import sys
import time


def main() -> int:
    started = time.monotonic()
    from trainers.engine.zero import load_cpu_op

    if not load_cpu_op():
        print("no operation to compile on this device")
    else:
        print(f"CPU operation loads ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
