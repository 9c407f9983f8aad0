"""Log-probabilities of given tokens, without the (batch, time, vocabulary) tensor.

Shapes: B sequences, T tokens, L tokens they all begin with, N scored tokens, H hidden size,
V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evals.engine.batching import pad
from evals.engine.prefix_cache import Reader
from trainers.foundation.errors import TrainingError

# Logits live in pieces of at most this many numbers: 64 MiB in float32, which stays quick to
# allocate and keeps the peak far below the model's own weights.
MAX_LOGITS = 2**24


class TokenScorer:
    """Scores tokens with one model: hidden states first, logits only where a token is scored.

    `head_alone` says that the model's logits are its output embedding applied to the last hidden
    states and nothing else. Families that cap or scale their logits (Gemma 2, Cohere, Granite,
    nanochat and others, each under a name of its own) fail that test, and then the model makes
    its own logits, a few sequences at a time. It is tested by running both on a few tokens, since
    no list of attribute names could be complete.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.reader = Reader(model)
        head: Any = model.get_output_embeddings
        self.head: Any = head()
        self.head_alone = self._head_is_all()

    @torch.inference_mode()
    def sequence_log_probs(
        self, sequences: Sequence[list[int]], first_scored: Sequence[int]
    ) -> Tensor:
        """ln p(token t | tokens before t) of each sequence, float32 (B, T).

        It is 0 for tokens before a sequence's `first_scored`, for the first token of a sequence,
        which nothing predicts, and behind its end.

        Raises:
            TrainingError: one of them is not finite.
        """
        return self.sequence_scores(sequences, first_scored)[..., 0]

    @torch.inference_mode()
    def sequence_scores(
        self, sequences: Sequence[list[int]], first_scored: Sequence[int]
    ) -> Tensor:
        """As `sequence_log_probs`, and beside it whether the token is the likeliest: (B, T, 2).

        Raises:
            TrainingError: a log-probability is not finite.
        """
        input_ids_BT, mask_BT = pad(sequences, side="right", device=self.model.device)
        columns_T = torch.arange(input_ids_BT.shape[1], device=self.model.device)
        starts_B1 = torch.tensor(first_scored, device=self.model.device).clamp(min=1)[:, None]
        scored_BT = mask_BT.bool() & (columns_T >= starts_B1)
        if not self.head_alone:
            return self._from_own_logits(input_ids_BT, mask_BT, scored_BT)
        begun = self.reader.read_beginning(sequences)
        scores_BT2 = torch.zeros((*scored_BT.shape, 2), device=self.model.device)
        if begun is None:
            hidden_BTH = self.reader.hidden_states(input_ids_BT, mask_BT)[:, :-1]
            num_begun = 1
        else:
            hidden_1LH, context = begun
            num_begun = hidden_1LH.shape[1]
            scores_BT2[:, 1:num_begun] = self.head_scores(
                hidden_1LH[0, :-1], input_ids_BT[0, 1:num_begun]
            )
            hidden_BTH, _ = self.reader.read(
                input_ids_BT[:, num_begun:],
                mask_BT[:, num_begun:],
                context.repeated(len(sequences)),
            )
            last_B1H = hidden_1LH[:, -1:].expand(len(sequences), -1, -1)
            hidden_BTH = torch.cat([last_B1H, hidden_BTH[:, :-1]], dim=1)
        scored_BS = scored_BT[:, num_begun:]
        scores_BT2[:, num_begun:][scored_BS] = self.head_scores(
            hidden_BTH[scored_BS], input_ids_BT[:, num_begun:][scored_BS]
        )
        return scores_BT2 * scored_BT[..., None]

    def head_scores(self, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        """ln p(target) after each last hidden state, and whether it is the likeliest: (N, 2).

        Both are float32. Only where `head_alone`.

        Raises:
            TrainingError: a log-probability is not finite.
        """
        assert self.head_alone
        num_tokens = max(1, MAX_LOGITS // self._vocab_size())
        scores_N2 = torch.zeros((len(targets_N), 2), device=hidden_NH.device)
        for start in range(0, len(targets_N), num_tokens):
            piece = slice(start, start + num_tokens)
            scores_N2[piece] = _scores(self.head(hidden_NH[piece]), targets_N[piece])
        return scores_N2

    def _from_own_logits(self, input_ids_BT: Tensor, mask_BT: Tensor, scored_BT: Tensor) -> Tensor:
        scores_BT2 = torch.zeros((*input_ids_BT.shape, 2), device=input_ids_BT.device)
        num_rows = max(1, MAX_LOGITS // (input_ids_BT.shape[1] * self._vocab_size()))
        for start in range(0, len(input_ids_BT), num_rows):
            rows = slice(start, start + num_rows)
            logits_RTV = self.model(
                input_ids=input_ids_BT[rows], attention_mask=mask_BT[rows], use_cache=False
            ).logits
            scored_RS = scored_BT[rows, 1:]
            scores_BT2[rows, 1:][scored_RS] = _scores(
                logits_RTV[:, :-1][scored_RS], input_ids_BT[rows, 1:][scored_RS]
            )
        return scores_BT2

    def _vocab_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    @torch.inference_mode()
    def _head_is_all(self) -> bool:
        base = self.reader.base
        if self.head is None or base is self.model:
            return False
        input_ids_1T = torch.arange(min(8, self._vocab_size()), device=self.model.device)[None]
        output = base(input_ids=input_ids_1T, use_cache=False)
        hidden_1TH = getattr(output, "last_hidden_state", None)
        if hidden_1TH is None:
            return False
        logits_1TV = self.model(input_ids=input_ids_1T, use_cache=False).logits
        # The same operations on the same numbers: equal to the last bit, or something follows.
        return torch.equal(self.head(hidden_1TH).float(), logits_1TV.float())


def _scores(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV = logits_NV.float()
    picked_N = logits_NV.gather(1, targets_N[:, None])[:, 0]
    log_probs_N = picked_N - logits_NV.logsumexp(dim=1)
    if not torch.isfinite(log_probs_N).all():
        raise TrainingError(
            "the model gives log-probabilities that are not finite: its weights have diverged;"
            " lower optimizer.learning_rate",
            kind="divergence",
        )
    return torch.stack([log_probs_N, (logits_NV.argmax(dim=1) == targets_N).float()], dim=1)
