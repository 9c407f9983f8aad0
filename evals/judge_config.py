"""Settings of the judge and of the tasks that it scores."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from evals.config_base import EvalSettings, PositiveInt, absolute_path
from trainers.foundation.errors import InputError, Problem

StyleName = Literal["alpaca_eval", "ranking", "verdict"]
Share = Annotated[float, Field(ge=0, le=1)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class JudgeConfig(EvalSettings):
    """The judge: an OpenAI-compatible endpoint, or a model that is served locally.

    Only `base_url`, `model`, `local_model`, `name`, `temperature`, `max_tokens`, `seed` and
    `structured_output` can change a verdict; the others concern time and money.
    """

    base_url: str | None = Field(
        default=None, description="URL of an OpenAI-compatible API, including its /v1."
    )
    model: str | None = Field(default=None, description="Name of the judge at that endpoint.")
    local_model: str | None = Field(
        default=None,
        description="Model folder or hub name, or NAME@COMMIT, to serve on this machine instead of "
        "base_url. The commit of a hub model is part of the judge's identity.",
    )
    name: str | None = Field(
        default=None,
        description="Name of the judge in cache and signature, instead of its URL and model.",
    )
    api_key_env: str | None = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the key; null for an endpoint without one.",
    )
    both_orders: bool = Field(
        default=True, description="Judge each pair twice, with either output first once."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=0.0, description="Sampling temperature; null for the endpoint's default."
    )
    max_tokens: PositiveInt = Field(default=256, description="Maximum tokens of a reply.")
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="Name of max_tokens in requests to the endpoint."
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=0, description="Sent with each request; null to leave it out."
    )
    structured_output: bool = Field(
        default=False,
        description="Request replies that follow a JSON schema, if the endpoint supports it.",
    )
    concurrency: PositiveInt = Field(
        default=8, description="Concurrent requests; a local model answers them in one batch."
    )
    requests_per_minute: PositiveInt | None = Field(
        default=None, description="Rate limit, evenly spaced, including retries."
    )
    timeout_s: Seconds = Field(default=120.0, description="Deadline of one whole request.")
    retries: int = Field(
        default=8, ge=0, description="Retries of a request that gets no complete reply."
    )
    backoff_s: Seconds = Field(
        default=0.5, description="Wait before the first retry; it doubles, with jitter, up to 60 s."
    )
    parse_retries: int = Field(
        default=8, ge=0, description="Retries of a request whose reply holds no verdict."
    )
    max_unparsable_share: Share = Field(
        default=0.05, description="Share of requests without a verdict above which the run fails."
    )
    price_per_million_input_tokens: Price = Field(
        default=0.0, description="Price of prompt tokens, in any currency."
    )
    price_per_million_output_tokens: Price = Field(
        default=0.0, description="Price of reply tokens, in the same currency."
    )
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Maximum cost of one run, in the currency of the prices."
    )
    cache_dir: str | None = Field(
        default=None, description="Folder of cached replies; default: the user's cache folder."
    )
    start_timeout_s: Seconds = Field(
        default=600.0, description="Deadline for a local model to load and answer."
    )

    @model_validator(mode="after")
    def _check_one_judge(self) -> Self:
        if (self.base_url is None) == (self.local_model is None):
            raise ValueError("a judge needs base_url and model, or local_model; set one of them")
        if self.base_url is not None:
            if not self.model:
                raise ValueError("model must name the judge at base_url; set it")
            _check_url(self.base_url)
        if self.local_model is not None and self.model is not None:
            raise ValueError(
                "model is the name of a judge at base_url; remove it next to local_model"
            )
        prices = (self.price_per_million_input_tokens, self.price_per_million_output_tokens)
        if self.budget is not None and not any(prices):
            raise ValueError("budget needs a price per million input or output tokens; set one")
        return self

    def with_absolute_paths(self) -> Self:
        """Return a copy with absolute paths, for a process with another working directory."""
        local, cache = self.local_model, self.cache_dir
        if local is not None and Path(local).expanduser().is_dir():
            local = absolute_path(local)
        return self.model_copy(
            update={"local_model": local, "cache_dir": cache and absolute_path(cache)}
        )

    def scoring_settings(self) -> dict[str, Any]:
        """Return the settings that can change a verdict, as JSON values."""
        identity = ("name",) if self.name is not None else ("base_url", "model", "local_model")
        return {
            **{field: getattr(self, field) for field in identity},
            "both_orders": self.both_orders,
            **self.reply_settings(),
        }

    def reply_settings(self) -> dict[str, Any]:
        """Return the settings in the cache key of a reply and in the signature of scores."""
        # The key is added only if true, so that replies cached before this setting existed are
        # found.
        structured = {"structured_output": True} if self.structured_output else {}
        return {**self.request_settings(), **structured}

    def request_settings(self) -> dict[str, Any]:
        """Return the fields of every request except model, messages and response_format."""
        fields: dict[str, Any] = {self.token_limit_field: self.max_tokens}
        if self.temperature is not None:
            fields["temperature"] = self.temperature
        if self.seed is not None:
            fields["seed"] = self.seed
        return fields

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price of a request with these token counts."""
        return (
            input_tokens * self.price_per_million_input_tokens
            + output_tokens * self.price_per_million_output_tokens
        ) / 1_000_000


# Opponents that are names, not paths: the trial with PLW 0 of the same sweep, which has the same
# other settings and seed, and the model before training.
PLW_0, UNTUNED = "plw_0", "untuned"
OPPONENT_NAMES = (PLW_0, UNTUNED)


class JudgedConfig(EvalSettings):
    """Generation of the outputs that are judged."""

    examples: PositiveInt | None = Field(
        default=None,
        description="Number of prompts, drawn with the seed; null: evals.limit, or all.",
    )
    max_new_tokens: PositiveInt = Field(default=512, description="Maximum tokens of an output.")

    def with_absolute_paths(self) -> Self:
        """Return a copy with absolute paths, for a process with another working directory."""
        paths = {
            name: absolute_path(value)
            for name in ("reference", "prompts", "opponent", "path")
            if (value := getattr(self, name, None)) is not None and value not in OPPONENT_NAMES
        }
        return self.model_copy(update=paths)


class AlpacaEvalConfig(JudgedConfig):
    """AlpacaEval 1: the model's outputs against the published reference outputs."""

    reference: str | None = Field(
        default=None,
        description="JSON file of instruction and output; null: "
        "alpaca_eval/text_davinci_003_outputs.json in evals.data_root.",
    )


class PandaLMPromptsConfig(JudgedConfig):
    """PandaLM's 170 prompts, with our judge prompt: the model's outputs against an opponent's."""

    prompts: str | None = Field(
        default=None,
        description="JSON file of instruction and input; null: "
        "pandalm/testset-inference-v1.json in evals.data_root.",
    )
    opponent: str = Field(
        default=PLW_0,
        min_length=1,
        description="plw_0: the sweep's trial with PLW 0, the same other settings and the same "
        "seed. Or a JSON file of instruction, input and output, a model folder, or untuned: the "
        "model before training, against which every tuned model wins.",
    )


class JudgedSetConfig(JudgedConfig):
    """A custom set: the model's outputs against those in a file."""

    name: str = Field(min_length=1, description="Name of the set; a prefix of its scores' names.")
    path: str = Field(
        description="JSON or JSONL file of instruction, input (optional) and output, or the "
        "questions of MT-Bench or Arena-Hard."
    )
    reference: str | None = Field(
        default=None,
        min_length=1,
        description="File of the opponent's outputs, matched by question_id, uid or prompt; null: "
        "those in path.",
    )
    style: StyleName = Field(
        default="ranking",
        description="Prompt of the judge. alpaca_eval: AlpacaEval 1's; ranking, verdict: ours, for "
        "replies with both ranks, or with 1, 2 or Tie.",
    )


def read_api_key(config: JudgeConfig) -> str | None:
    """Return the key from the environment; None for a judge without a key.

    The key is never written or printed.

    Raises:
        InputError: the variable is not set, or its value cannot be a key.
    """
    name = config.api_key_env
    if name is None or config.local_model is not None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        fault = "contains a character that is invalid in a key" if key else "is not set"
        raise InputError(
            Problem(
                message=f"the judge needs a key, and the environment variable {name} {fault}",
                where="evals.judge.api_key_env",
                fix=f"export {name}, or set api_key_env to null for an endpoint without a key",
            )
        )
    return key


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "base_url must be a URL such as https://api.openai.com/v1; begin it with https://"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        # The URL is written to signatures and logs.
        raise ValueError(
            "base_url must hold no user, password or query; put the key into the environment"
            " variable that api_key_env names"
        )
