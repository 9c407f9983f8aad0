"""`python -m evals.judge.server_process MODEL PORT`: `transformers serve` for one parent process.

It ends, with all its children, when its standard input closes: also where whoever started it was
killed and could stop nothing.
"""

import os
import signal
import sys
import threading


def main(model: str, port: str) -> None:
    """Serve `model` on loopback until standard input ends."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    import torch
    from transformers.cli.transformers import app

    # Half precision is slow on a CPU.
    dtype = "auto" if torch.cuda.is_available() else "float32"
    options = ["--host", "127.0.0.1", "--port", port, "--dtype", dtype]
    app(["serve", model, *options])


def _end_with_input() -> None:
    # Not through sys.stdin, whose lock Python may want when it ends by itself.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
