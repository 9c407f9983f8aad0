"""TRL's SFTTrainer as a second implementation: at PLW 0 and 1 both define the same loss.

Its proposed Weighted Instruction Tuning divides by the tokens of non-zero weight, as our mode
`nonzero` does: prompt weight 0 is its completion-only loss, 1 its loss over the whole sequence.
"""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.trainers.gradients import Cell, errors, examples, tiny_model, write_gradients
from tests.worlds import run_in_world
from trainers.data.roles import Role

pytestmark = pytest.mark.full

CELLS = [
    Cell(plw, "nonzero", 2, 1, micro_batch_size=4, packing=packing)
    for plw in (0.0, 1.0)
    for packing in (False, True)
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    run_in_world(1, write_gradients, CELLS, folder)
    return folder


def trl_gradient(folder: Path, *, completion_only: bool) -> dict[str, torch.Tensor]:
    """Return TRL's gradient over two micro-batches of four, before its optimizer step."""
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from tests.tiny_model import tiny_tokenizer

    found: dict[str, torch.Tensor] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            found.update({name: p.grad.clone() for name, p in model.named_parameters()})

    rows = [
        {
            "input_ids": example.input_ids,
            "completion_mask": [int(role == Role.COMPLETION) for role in example.roles],
        }
        for example in examples(8)
    ]
    trainer = SFTTrainer(
        model=tiny_model(),
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            completion_only_loss=completion_only,
            max_grad_norm=0.0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        callbacks=[Keep()],
    )
    trainer.train()
    return found


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_gradient_equals_that_of_trl(cell: Cell, ours: Path, tmp_path: Path) -> None:
    theirs = trl_gradient(tmp_path, completion_only=cell.prompt_loss_weight == 0)
    overall, _ = errors(torch.load(ours / f"{cell.name}.pt"), theirs)
    assert overall < 1e-5
