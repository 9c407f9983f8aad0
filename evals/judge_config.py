"""Who judges pairs of outputs, how it is asked, and what asking may cost."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from evals.config_base import EvalSection, PositiveInt, absolute
from trainers.foundation.errors import InputError, Problem

StyleName = Literal["ranking", "verdict"]
Share = Annotated[float, Field(ge=0, le=1)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class JudgeConfig(EvalSection):
    """The judge: an OpenAI-compatible endpoint, or a model that is served here meanwhile.

    Only `base_url`, `model`, `local_model`, `name`, `temperature`, `max_tokens` and `seed` can
    change a verdict; the rest is about time and money.
    """

    base_url: str | None = Field(
        default=None, description="URL of an OpenAI-compatible API, up to and with its /v1."
    )
    model: str | None = Field(default=None, description="The judge's name at that endpoint.")
    local_model: str | None = Field(
        default=None,
        description="Model folder or hub name to serve on this machine, instead of base_url.",
    )
    name: str | None = Field(
        default=None,
        description="What the judge is called in cache and signature instead of its URL and model.",
    )
    api_key_env: str | None = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the key; null for an endpoint without one.",
    )
    both_orders: bool = Field(
        default=True, description="Ask about each pair twice, either output first once."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=0.0, description="null leaves it to the endpoint."
    )
    max_tokens: PositiveInt = Field(default=256, description="Tokens of a reply.")
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="What the endpoint calls max_tokens."
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=0, description="Sent with each request; null leaves it out."
    )
    concurrency: PositiveInt = Field(
        default=8, description="Requests at once; a local model is asked one by one."
    )
    requests_per_minute: PositiveInt | None = Field(
        default=None, description="Requests are spaced to stay below it, retries included."
    )
    timeout_s: Seconds = Field(default=120.0, description="For one request, from start to end.")
    retries: int = Field(
        default=8, ge=0, description="Further tries where no whole reply comes, for each question."
    )
    backoff_s: Seconds = Field(
        default=0.5, description="Wait before the first retry; it doubles, with jitter, up to 60 s."
    )
    reasks: int = Field(
        default=8, ge=0, description="Further tries where a reply holds no verdict."
    )
    max_unparsable_share: Share = Field(
        default=0.05, description="Share of questions without a verdict above which judging fails."
    )
    price_per_million_input_tokens: Price = Field(
        default=0.0, description="Of prompt tokens, in any currency."
    )
    price_per_million_output_tokens: Price = Field(
        default=0.0, description="Of reply tokens, in the same."
    )
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Money for one judging, in the currency of the prices."
    )
    cache_dir: str | None = Field(
        default=None, description="Where replies are kept; default: the user's cache folder."
    )
    start_timeout_s: Seconds = Field(
        default=600.0, description="For a local model to load and answer."
    )

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        if (self.base_url is None) == (self.local_model is None):
            raise ValueError("a judge needs base_url and model, or local_model; give one of them")
        if self.base_url is not None:
            if not self.model:
                raise ValueError("model must name the judge at base_url; add it")
            _check_url(self.base_url)
        if self.local_model is not None and self.model is not None:
            raise ValueError("model names a judge at base_url; drop it beside local_model")
        prices = (self.price_per_million_input_tokens, self.price_per_million_output_tokens)
        if self.budget is not None and not any(prices):
            raise ValueError("budget needs a price per million input or output tokens; add them")
        return self

    def with_absolute_paths(self) -> Self:
        """The same, for a process that runs in another folder."""
        local, cache = self.local_model, self.cache_dir
        if local is not None and Path(local).expanduser().is_dir():
            local = absolute(local)
        return self.model_copy(
            update={"local_model": local, "cache_dir": cache and absolute(cache)}
        )

    def scoring_settings(self) -> dict[str, Any]:
        """What of these settings can change a verdict, ready for JSON."""
        who = ("name",) if self.name is not None else ("base_url", "model", "local_model")
        return {
            **{field: getattr(self, field) for field in who},
            "both_orders": self.both_orders,
            **self.request_settings(),
        }

    def request_settings(self) -> dict[str, Any]:
        """The fields of a request besides the model and its messages."""
        fields: dict[str, Any] = {self.token_limit_field: self.max_tokens}
        if self.temperature is not None:
            fields["temperature"] = self.temperature
        if self.seed is not None:
            fields["seed"] = self.seed
        return fields


UNTUNED = "untuned"


class JudgedConfig(EvalSection):
    """How the outputs of a judged measure are made."""

    examples: PositiveInt | None = Field(
        default=None, description="Prompts, drawn by the seed; null: evals.limit, or all of them."
    )
    max_new_tokens: PositiveInt = Field(default=512, description="Tokens of an output at most.")

    def with_absolute_paths(self) -> Self:
        """The same, for a process that runs in another folder."""
        paths = {
            name: absolute(value)
            for name in ("reference", "prompts", "opponent", "path")
            if (value := getattr(self, name, None)) is not None and value != UNTUNED
        }
        return self.model_copy(update=paths)


class AlpacaEvalConfig(JudgedConfig):
    """AlpacaEval 1: the model's outputs against the published reference outputs."""

    reference: str | None = Field(
        default=None,
        description="JSON of instruction and output; null: "
        "alpaca_eval/text_davinci_003_outputs.json in evals.data_root.",
    )


class PandaLMConfig(JudgedConfig):
    """PandaLM's 170 prompts: the model's outputs against an opponent's."""

    prompts: str | None = Field(
        default=None,
        description="JSON of instruction and input; null: pandalm/testset-inference-v1.json in "
        "evals.data_root.",
    )
    opponent: str = Field(
        default=UNTUNED,
        description="Whose outputs: a JSON file of instruction, input and output, a model folder,"
        " or untuned for the model that the trained one began as.",
    )


class JudgedSetConfig(JudgedConfig):
    """A set of one's own: the model's outputs against those in the file."""

    name: str = Field(min_length=1, description="What its scores are called.")
    path: str = Field(description="JSON or JSONL of instruction, input (or none) and output.")
    style: StyleName = Field(
        default="ranking",
        description="ranking: two models in a list with ranks; verdict: 1, 2 or Tie.",
    )


def api_key(config: JudgeConfig) -> str | None:
    """The key from the environment; None for a judge that needs none. Never written anywhere.

    Raises:
        InputError: it is not set, or cannot be a key.
    """
    name = config.api_key_env
    if name is None or config.local_model is not None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        fault = "holds a character that no key has" if key else "is not set"
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
        # It would be written to signatures and logs.
        raise ValueError(
            "base_url must hold no user, password or query; put the key into the environment"
            " variable that api_key_env names"
        )
