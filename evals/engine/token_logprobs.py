"""Log-probabilities of given tokens, without the (batch, time, vocabulary) tensor.

Shapes: B sequences, T tokens, L tokens of the shared prefix, N scored tokens, H hidden size, V
vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evals.engine.batching import pad
from evals.engine.helper_ranks import HelperRanks
from evals.engine.prefix_cache import Backbone
from trainers.foundation.errors import TrainingError

# Maximum number of logits per chunk: 64 MiB in float32. This is fast to allocate and keeps the peak
# memory far below the size of the weights.
MAX_LOGITS = 2**24


class TokenScorer:
    """Log-probabilities from one model: logits are computed only where a token is scored.

    `logits_are_head_output` is True if the logits are the output embedding applied to the last
    hidden states, without further operations. It is False for families that cap or scale their
    logits (Gemma 2, Cohere, Granite, nanochat and others, under different setting names). Their
    logits come from the whole model, a few sequences at a time. A test on a few tokens compares
    both results, because no list of setting names is complete.

    `helpers` are other ranks with the same model; None: this process scores alone.
    """

    def __init__(self, model: PreTrainedModel, helpers: HelperRanks | None = None) -> None:
        self.model = model
        self.helpers = helpers
        self.backbone = Backbone(model)
        get_head: Any = model.get_output_embeddings
        self.head: Any = get_head()
        self.logits_are_head_output = self._check_head()

    @torch.inference_mode()
    def sequence_log_probs(
        self, sequences: Sequence[list[int]], first_scored: Sequence[int]
    ) -> Tensor:
        """Return ln p(token t | tokens before t) of each sequence, float32 (B, T).

        The value is 0 for tokens before a sequence's `first_scored` and after its end. It is also 0
        for the first token of a sequence, which has no prediction.

        Raises:
            TrainingError: a log-probability is not finite.
        """
        return self.sequence_scores(sequences, first_scored)[..., 0]

    @torch.inference_mode()
    def sequence_scores(
        self, sequences: Sequence[list[int]], first_scored: Sequence[int]
    ) -> Tensor:
        """Return each token's log-probability and whether it is the most likely token: (B, T, 2).

        Raises:
            TrainingError: a log-probability is not finite.
        """
        input_ids_BT, mask_BT = pad(sequences, side="right", device=self.model.device)
        columns_T = torch.arange(input_ids_BT.shape[1], device=self.model.device)
        starts_B1 = torch.tensor(first_scored, device=self.model.device).clamp(min=1)[:, None]
        scored_BT = mask_BT.bool() & (columns_T >= starts_B1)
        if not self.logits_are_head_output:
            return self._scores_from_model_logits(input_ids_BT, mask_BT, scored_BT)
        prefilled = self.backbone.prefill_shared_prefix(sequences)
        scores_BT2 = torch.zeros((*scored_BT.shape, 2), device=self.model.device)
        if prefilled is None:
            hidden_BTH = self.backbone.hidden_states(input_ids_BT, mask_BT)[:, :-1]
            num_prefix_tokens = 1
        else:
            hidden_1LH, prefix = prefilled
            num_prefix_tokens = hidden_1LH.shape[1]
            scores_BT2[:, 1:num_prefix_tokens] = self.head_scores(
                hidden_1LH[0, :-1], input_ids_BT[0, 1:num_prefix_tokens]
            )
            hidden_BTH, _ = self.backbone.forward(
                input_ids_BT[:, num_prefix_tokens:],
                mask_BT[:, num_prefix_tokens:],
                prefix.repeat_interleave(len(sequences)),
            )
            last_B1H = hidden_1LH[:, -1:].expand(len(sequences), -1, -1)
            hidden_BTH = torch.cat([last_B1H, hidden_BTH[:, :-1]], dim=1)
        scored_BS = scored_BT[:, num_prefix_tokens:]
        scores_BT2[:, num_prefix_tokens:][scored_BS] = self.head_scores(
            hidden_BTH[scored_BS], input_ids_BT[:, num_prefix_tokens:][scored_BS]
        )
        return scores_BT2 * scored_BT[..., None]

    def head_scores(self, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        """Return ln p(target) after each hidden state, and whether it is the most likely: (N, 2).

        Both are float32. Needs `logits_are_head_output`.

        Raises:
            TrainingError: a log-probability is not finite.
        """
        assert self.logits_are_head_output
        chunk_size = max(1, MAX_LOGITS // self._vocab_size())
        scores_N2 = torch.zeros((len(targets_N), 2), device=hidden_NH.device)
        for start in range(0, len(targets_N), chunk_size):
            chunk = slice(start, start + chunk_size)
            scores_N2[chunk] = _target_scores(self.head(hidden_NH[chunk]), targets_N[chunk])
        return scores_N2

    def _scores_from_model_logits(
        self, input_ids_BT: Tensor, mask_BT: Tensor, scored_BT: Tensor
    ) -> Tensor:
        scores_BT2 = torch.zeros((*input_ids_BT.shape, 2), device=input_ids_BT.device)
        num_rows = max(1, MAX_LOGITS // (input_ids_BT.shape[1] * self._vocab_size()))
        for start in range(0, len(input_ids_BT), num_rows):
            rows = slice(start, start + num_rows)
            logits_RTV = self.model(
                input_ids=input_ids_BT[rows], attention_mask=mask_BT[rows], use_cache=False
            ).logits
            scored_RS = scored_BT[rows, 1:]
            scores_BT2[rows, 1:][scored_RS] = _target_scores(
                logits_RTV[:, :-1][scored_RS], input_ids_BT[rows, 1:][scored_RS]
            )
        return scores_BT2

    def _vocab_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    @torch.inference_mode()
    def _check_head(self) -> bool:
        base_model = self.backbone.base_model
        if self.head is None or base_model is self.model:
            return False
        input_ids_1T = torch.arange(min(8, self._vocab_size()), device=self.model.device)[None]
        output = base_model(input_ids=input_ids_1T, use_cache=False)
        hidden_1TH = getattr(output, "last_hidden_state", None)
        if hidden_1TH is None:
            return False
        logits_1TV = self.model(input_ids=input_ids_1T, use_cache=False).logits
        # The same operations on the same numbers give bitwise equal results. Any difference means
        # that the model changes its logits further.
        return torch.equal(self.head(hidden_1TH).float(), logits_1TV.float())


def _target_scores(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV = logits_NV.float()
    target_logits_N = logits_NV.gather(1, targets_N[:, None])[:, 0]
    log_probs_N = target_logits_N - logits_NV.logsumexp(dim=1)
    check_finite(log_probs_N)
    return torch.stack([log_probs_N, (logits_NV.argmax(dim=1) == targets_N).float()], dim=1)


def check_finite(log_probs: Tensor) -> None:
    """Check log-probabilities or logits.

    Raises:
        TrainingError: a value is not finite.
    """
    if not torch.isfinite(log_probs).all():
        raise TrainingError(
            "the model's log-probabilities are not finite: its weights have diverged;"
            " lower optimizer.learning_rate",
            kind="divergence",
        )
