"""Compile the decoder layers of a model by torch.compile."""

import gc

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from trainers.foundation.errors import InputError, Problem


def compile_layers(model: PreTrainedModel) -> None:
    """Compile each decoder layer at its first call, in place; parameter names stay the same.

    Sizes are symbols, because lengths change with every pass: a graph for each new length would
    take longer than it saves. Layers of one kind share their graphs. The loss head is not compiled:
    it never creates the full logits, and a compiled product with the output matrix would.

    Raises:
        InputError: the model's layers cannot be distinguished from its other modules.
    """
    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            Problem(
                message=f"model.compile_layers does not support {model.config.model_type}: its "
                "layers are not transformers' GradientCheckpointingLayer",
                fix="set model.compile_layers to false",
            )
        )
    # The garbage collector destroys the engine of a failed run, which must not happen while the
    # compiler traces.
    gc.collect()
    for layer in layers:
        layer.compile(dynamic=True)
