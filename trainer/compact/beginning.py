"""A compact encoder as it begins: a piece of its teacher.

Hidden units and heads of attention are kept by how much they move what comes after them: the
deviation, over steps of the recordings, of what each adds to it. What the others add, and what the
bands tell that are not heard, is kept in the mean.

Source: An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models, 2024
(what is pruned is chosen by its fluctuation, and its mean goes into the bias).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.backbones.compact import Compact, CompactSettings, compact_steps
from trainer.backbones.transformer import Layer
from trainer.backbones.whisper import Whisper
from trainer.compact.lessons import Lessons
from trainer.compact.settings import EncoderRecipe
from trainer.errors import TrainerError
from trainer.features import time_mask
from trainer.metrics import Int64

# Segments that the standard and the hidden units' worth are measured on.
_STANDARD_SEGMENTS = 200
_WORTH_SEGMENTS = 64
_LEAST_DEVIATION = 1e-4


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and deviation of each value that the teacher says: float32 [layers, width]."""

    mean: Tensor
    deviation: Tensor

    def __call__(self, told: Tensor) -> Tensor:
        """float32 [batch, layers, steps, width] to mean 0 and variance 1."""
        return (told - self.mean[:, None]) / self.deviation[:, None]


def measure_standard(lessons: Lessons, seed: int) -> Standard:
    """Of some segments that nothing was done to."""
    _, told, frames = lessons.take(*_some(lessons, _STANDARD_SEGMENTS, seed))
    steps = compact_steps(frames, lessons.stride)
    valid = told.transpose(1, 2)[time_mask(steps, told.shape[2]) > 0]
    deviation = valid.std(dim=0, correction=0).clamp(min=_LEAST_DEVIATION)
    return Standard(valid.mean(dim=0), deviation)


def compact_settings(recipe: EncoderRecipe, teacher: Whisper) -> CompactSettings:
    """Sizes of the encoder that a recipe makes of a teacher.

    Raises
    ------
    TrainerError
        the teacher is smaller.
    """
    sizes, first = recipe.sizes, _layer(teacher, 0)
    there = {
        "bands": int(teacher.log_mel.mel.shape[0]),
        "heads": first.heads,
        "hidden": first.widen.out_features,
    }
    wanted = sizes.model_dump(include=set(there), exclude_none=True)
    for name, count in wanted.items():
        if count > there[name]:
            raise TrainerError(f"sizes.{name}: the teacher has {there[name]}, not {count}.")
    return CompactSettings(
        mels=there["bands"],
        width=teacher.width,
        head_size=first.head_size,
        depth=sizes.depth,
        stride=sizes.stride,
        layers=recipe.teacher.layers,
        positions=len(_positions(teacher, sizes.stride)),
        **{**there, **wanted},
    )


@torch.no_grad()
def begin(
    teacher: Whisper, settings: CompactSettings, lessons: Lessons, standard: Standard, seed: int
) -> Compact:
    """The encoder before it has learnt anything.

    Its maps begin as the standard: what it says of its teacher's layers is standardised.
    """
    encoder = Compact(settings)
    weight, bias = teacher.conv1.weight, teacher.conv1.bias
    unheard = torch.from_numpy(lessons.level[settings.bands :])
    of_them = weight[:, settings.bands :].sum(dim=2) @ unheard
    encoder.conv1.load_state_dict({"weight": weight[:, : settings.bands], "bias": bias + of_them})
    encoder.conv2.load_state_dict(teacher.conv2.state_dict())
    encoder.positions.copy_(_positions(teacher, settings.stride))
    for number, told in enumerate(encoder.maps):
        assert isinstance(told, nn.Linear)
        told.weight.copy_(torch.diag(1 / standard.deviation[number]))
        told.bias.copy_(-standard.mean[number] / standard.deviation[number])
    whole = [_layer(teacher, number) for number in range(settings.depth)]
    encoder.blocks = nn.ModuleList(whole)
    mel, _, frames = lessons.take(*_some(lessons, _WORTH_SEGMENTS, seed))
    dense, attended = _activations(encoder, whole, mel, frames)
    encoder.blocks = nn.ModuleList(
        _pruned(layer, units, found, settings)
        for layer, units, found in zip(whole, dense, attended, strict=True)
    )
    return encoder


def _activations(
    encoder: Compact, layers: list[Layer], mel: Tensor, frames: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Of the dense part and of all heads of each layer: float32 [valid steps, units]."""
    dense: list[Tensor] = []
    attended: list[Tensor] = []

    def catch(into: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: into.append(given[0])

    hooks = []
    for layer in layers:
        hooks.append(layer.narrow.register_forward_pre_hook(catch(dense)))
        hooks.append(layer.join.register_forward_pre_hook(catch(attended)))
    told, steps = encoder.tell(mel, frames)
    for hook in hooks:
        hook.remove()
    valid = time_mask(steps, told.shape[2]).flatten() > 0
    return [units[valid] for units in dense], [units[valid] for units in attended]


def _pruned(layer: Layer, units: Tensor, found: Tensor, settings: CompactSettings) -> Layer:
    """A layer with those hidden units and heads that matter most.

    Parameters
    ----------
    units
        float32 [steps, hidden units], their activations.
    found
        float32 [steps, heads * head size], what the heads found.
    """
    narrower = Layer(settings.width, settings.heads, settings.head_size, settings.hidden)
    heads = _best(_worth_of_heads(layer, found), settings.heads)
    places = (heads[:, None] * layer.head_size + torch.arange(layer.head_size)).flatten()
    _keep(layer.join, narrower.join, places, found.mean(dim=0))
    # Queries, keys and values are one product.
    made = torch.cat([places + part * found.shape[1] for part in range(3)])
    narrower.attend.weight.copy_(layer.attend.weight[made])
    narrower.attend.bias.copy_(layer.attend.bias[made])
    worth = units.std(dim=0, correction=0) * layer.narrow.weight.norm(dim=0)
    hidden = _best(worth, settings.hidden)
    _keep(layer.narrow, narrower.narrow, hidden, units.mean(dim=0))
    narrower.widen.weight.copy_(layer.widen.weight[hidden])
    narrower.widen.bias.copy_(layer.widen.bias[hidden])
    narrower.norm.load_state_dict(layer.norm.state_dict())
    narrower.dense_norm.load_state_dict(layer.dense_norm.state_dict())
    return narrower


def _worth_of_heads(layer: Layer, found: Tensor) -> Tensor:
    """How much each moves what comes after: float32 [heads]."""
    join = layer.join.weight.reshape(-1, layer.heads, layer.head_size)
    each = found.reshape(-1, layer.heads, layer.head_size)
    added = [each[:, head] @ join[:, head].T for head in range(layer.heads)]
    return torch.stack([values.std(dim=0, correction=0).norm() for values in added])


def _keep(linear: nn.Linear, narrower: nn.Linear, kept: Tensor, mean: Tensor) -> None:
    """Copy a linear map of some of its inputs; what the others gave is replaced by its mean."""
    gone = torch.ones(len(mean), dtype=torch.bool)
    gone[kept] = False
    narrower.weight.copy_(linear.weight[:, kept])
    narrower.bias.copy_(linear.bias + linear.weight[:, gone] @ mean[gone])


def _best(worth: Tensor, count: int) -> Tensor:
    """Places of the largest, rising: int64 [count]."""
    return worth.topk(count).indices.sort().values


def _some(lessons: Lessons, count: int, seed: int) -> tuple[Int64, Int64]:
    there = lessons.frames.shape[1]
    chosen = np.random.default_rng([seed, 1]).choice(there, min(count, there), replace=False)
    return np.zeros(len(chosen), np.int64), np.sort(chosen)


def _layer(teacher: Whisper, number: int) -> Layer:
    layer = teacher.blocks[number]
    assert isinstance(layer, Layer)
    return layer


def _positions(teacher: Whisper, stride: int) -> Tensor:
    weight: Tensor = teacher.positions.weight
    return weight.detach()[::stride]
