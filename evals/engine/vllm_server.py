"""Generation by vLLM, a server in an environment of its own, for one checkpoint.

Prompts and outputs are token ids, so tokenizer and template are those of training. Source for the
fields of requests: vllm/entrypoints/openai/completion/protocol.py.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import torch

from evals.engine.loaded_model import GenerationSettings, LoadedModel, OutputCallback
from evals.engine.server_process import ServerProcess, free_port
from evals.engine.token_logprobs import check_finite
from evals.engine_config import VllmConfig, check_program
from trainers.foundation.errors import InputError, Problem, TrainingError

_WHERE = "evals.vllm"
_SERVED_NAME = "checkpoint"
_MAX_SHOWN = 300
# Time for which a server that has closed a connection may take to end.
_END_S = 5.0
# Variables of our Python that would change the packages of vLLM's.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class VllmServer:
    """Starts vLLM when the first output is needed, and stops it with `close`.

    Raises:
        InputError: the program of `config.command` does not exist.
    """

    name = "vllm"

    def __init__(self, config: VllmConfig, model_path: str | Path) -> None:
        self._config = config
        self._model_path = str(model_path)
        self._server: ServerProcess | None = None
        self._url = ""
        check_program(config)

    def generate(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        """Call `on_output` once for each prompt; see `GenerationEngine`."""
        # The server would return some token for logits that are not finite.
        with torch.inference_mode():
            ids_1T = torch.tensor([prompts[0]], device=loaded.device)
            check_finite(loaded.model(input_ids=ids_1T).logits[0, -1].amax())
        if self._server is None:
            self._start()
        asyncio.run(self._send_all(loaded, prompts, settings, on_output))

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _start(self) -> None:
        port = free_port()
        command = [
            *self._config.command,
            self._model_path,
            *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", _SERVED_NAME),
            # Without the checkpoint's sampling settings, and in the precision of our own engines.
            *("--generation-config", "vllm", "--dtype", "bfloat16"),
            *self._config.arguments,
        ]
        environment = {key: value for key, value in os.environ.items() if key not in _OURS}
        server = ServerProcess(command, environment, name="vLLM", where=_WHERE)
        self._url = f"http://127.0.0.1:{port}"
        server.wait_until_ready(
            f"{self._url}/health",
            self._config.start_timeout_s,
            died_fix=f"run {' '.join(command)} to find the cause",
            slow_fix=f"raise {_WHERE}.start_timeout_s",
        )
        self._server = server

    async def _send_all(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        places = iter(range(len(prompts)))
        count = min(settings.max_rows or self._config.concurrency, len(prompts))
        async with httpx2.AsyncClient(
            timeout=self._config.timeout_s,
            limits=httpx2.Limits(max_connections=count),
            trust_env=False,
        ) as http:
            workers = [
                asyncio.create_task(self._work(http, loaded, prompts, settings, places, on_output))
                for _ in range(count)
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self,
        http: httpx2.AsyncClient,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        places: Iterator[int],
        on_output: OutputCallback,
    ) -> None:
        """Send requests until all workers together have sent all."""
        for place in places:
            body = {
                "model": _SERVED_NAME,
                "prompt": prompts[place],
                "max_tokens": settings.max_new_tokens,
                "temperature": 0.0,
                "stop": list(settings.stop_strings),
                "include_stop_str_in_output": True,
                # Stop strings may be special tokens, as in our own engines.
                "skip_special_tokens": False,
                "stop_token_ids": loaded.eos_token_ids,
                "return_token_ids": True,
            }
            output = await self._complete(http, body)
            if output and output[-1] in loaded.eos_token_ids:
                output = output[:-1]
            on_output(place, output)

    async def _complete(self, http: httpx2.AsyncClient, body: dict[str, Any]) -> list[int]:
        """Return the token ids of an output, including the end token."""
        try:
            response = await http.post(f"{self._url}/v1/completions", json=body)
        except httpx2.HTTPError as error:
            assert self._server is not None
            reason = str(error) or type(error).__name__
            if self._server.ends_within(_END_S):
                reason += f"; it has ended, its last line: {self._server.last_line()}"
            raise _failure(reason) from error
        if response.is_server_error:
            raise _failure(f"status {response.status_code}: {response.text[:_MAX_SHOWN]}")
        if not response.is_success:
            raise InputError(
                Problem(
                    message=f"vLLM rejects a prompt of {len(body['prompt'])} tokens with"
                    f" {body['max_tokens']} new tokens: {response.text[:_MAX_SHOWN]}",
                    where=_WHERE,
                    fix=f"change {_WHERE}.arguments, or use another engine",
                )
            )
        try:
            output: list[int] = response.json()["choices"][0]["token_ids"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                Problem(
                    message="the server's reply has no token ids",
                    where=f"{_WHERE}.command",
                    fix="use vLLM 0.10.2 or newer, which supports return_token_ids",
                )
            ) from error
        return output


def _failure(reason: str) -> TrainingError:
    return TrainingError(f"vLLM has failed ({reason})")
