"""Real process groups for tests: gloo ranks as local processes."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from trainers.engine.ranks import join_ranks


def _rank_main(
    rank: int,
    world_size: int,
    rendezvous: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size
    )
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
    # The results are written. torch's static objects are not destroyed: doing so has once aborted a
    # rank ("terminate called without an active exception").
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_in_world(world_size: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Run `function` in `world_size` processes that form a gloo group.

    The function writes its results to files; an exception in any rank is raised here. A world of
    one runs in this process, which saves seconds of imports.
    """
    if world_size == 1:
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            join_ranks()
            function(*arguments)
        finally:
            torch.set_num_threads(num_threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _rank_main,
            args=(world_size, str(Path(folder) / "rendezvous"), function, arguments),
            nprocs=world_size,
            start_method="spawn",
        )
