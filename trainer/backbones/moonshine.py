"""Moonshine's encoder, in the classes of `transformers`; a step is 24 ms.

The package `moonshine-voice` (MIT) carries Moonshine tiny for onnxruntime, its matrices rounded
to 8 bits; they are read into PyTorch so that layers can be asked for and trained. The package is
located, never imported.

Source: Jeffries et al., Moonshine: Speech Recognition for Live Transcription, 2024.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.backbones.base import SpeechEncoder, key_bias, norm_over_time
from trainer.errors import TrainerError
from trainer.features import time_mask

PACKAGE = "moonshine-voice==0.0.48"


class Moonshine(SpeechEncoder):
    """A `transformers.MoonshineModel`'s encoder; its norm over time is kept to valid steps."""

    first = 0

    def __init__(self, encoder: Any, name: str) -> None:
        super().__init__()
        self.name = name
        self.width = int(encoder.config.hidden_size)
        self.conv1, self.conv2, self.conv3 = encoder.conv1, encoder.conv2, encoder.conv3
        self.group_norm = encoder.groupnorm
        self.blocks = encoder.layers
        self.norm = encoder.layer_norm
        self.rotary = encoder.rotary_emb
        self.layers_there_are = len(encoder.layers)

    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `SpeechEncoder.forward`."""
        x = torch.tanh(self.conv1((audio * time_mask(length, audio.shape[1]))[:, None]))
        steps = _strided(length, self.conv1)
        with torch.autocast(x.device.type, enabled=False):
            x = norm_over_time(x.float(), time_mask(steps, x.shape[2]), self.group_norm)
        x = functional.gelu(self.conv2(x))
        x = functional.gelu(self.conv3(x)).transpose(1, 2)
        steps = _strided(_strided(steps, self.conv2), self.conv3)
        keys = key_bias(time_mask(steps, x.shape[1])).to(x.dtype)
        place = torch.arange(x.shape[1], device=x.device).float()[:, None]
        # each frequency turns two neighbouring channels
        angle = (place * self.rotary.inv_freq).repeat_interleave(2, dim=1)
        cosine, sine = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
        found = [x] if 0 in layers else []
        block: Any
        for number, block in enumerate(self.blocks, start=1):
            x = x + _attend(block.self_attn, block.input_layernorm(x), keys, cosine, sine)
            x = x + block.mlp(block.post_attention_layernorm(x))
            if number in layers:
                found.append(self.norm(x) if number == self.layers_there_are else x)
        return torch.stack(found, dim=1).float(), steps


def _attend(attention: Any, x: Tensor, keys: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The attention of `transformers`, whose way of turning its queries cannot be exported."""
    batch, steps, width = x.shape
    shape = (batch, steps, -1, attention.head_dim)
    turned = int(cosine.shape[1])

    def turn(x: Tensor) -> Tensor:
        pairs = x[..., :turned].reshape(*x.shape[:3], turned // 2, 2)
        # (a, b) a quarter further is (-b, a)
        ahead = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=4).reshape(*x.shape[:3], turned)
        return torch.cat([x[..., :turned] * cosine + ahead * sine, x[..., turned:]], dim=3)

    query = turn(attention.q_proj(x).view(shape).transpose(1, 2))
    key = turn(attention.k_proj(x).view(shape).transpose(1, 2))
    value = attention.v_proj(x).view(shape).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    given: Tensor = attention.o_proj(mixed.transpose(1, 2).reshape(batch, steps, width))
    return given


def _strided(count: Tensor, conv: Any) -> Tensor:
    """Steps of a convolution that lie wholly within so many, at least one: int64 [batch]."""
    whole = torch.div(count - conv.kernel_size[0], conv.stride[0], rounding_mode="floor") + 1
    return whole.clamp(min=1)


def model_path() -> Path:
    """The encoder's file in the installed package.

    Raises
    ------
    TrainerError
        the package is not installed.
    """
    spec = find_spec("moonshine_voice")
    if spec is None or spec.origin is None:
        raise TrainerError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    return Path(spec.origin).parent / "assets" / "tiny-en" / "encoder_model.ort"


def _read_ort(path: Path) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Constants of a graph in onnxruntime's own format, and the inputs of each of its nodes."""
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
        InferenceSession,
    )

    graph = InferenceSession.GetRootAs(path.read_bytes(), 0).Model().Graph()
    dtypes = {1: np.float32, 2: np.uint8, 3: np.int8}
    constants = {}
    for i in range(graph.InitializersLength()):
        tensor = graph.Initializers(i)
        if tensor.DataType() in dtypes:
            values = tensor.RawDataAsNumpy().view(dtypes[tensor.DataType()])
            shape = [tensor.Dims(k) for k in range(tensor.DimsLength())]
            constants[tensor.Name().decode()] = torch.from_numpy(values.reshape(shape).copy())
    nodes = {}
    for i in range(graph.NodesLength()):
        node = graph.Nodes(i)
        nodes[node.Name().decode()] = [node.Inputs(k).decode() for k in range(node.InputsLength())]
    return constants, nodes


def import_ort(path: Path) -> Any:
    """A `transformers` encoder with the weights of Moonshine tiny in onnxruntime's format.

    Raises
    ------
    TrainerError
        the file cannot be read, or holds something else.
    """
    from transformers import MoonshineConfig
    from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

    encoder: Any = MoonshineEncoder(MoonshineConfig())
    try:
        constants, nodes = _read_ort(path)
        state = {}
        for name, own in encoder.state_dict().items():
            layer, _, kind = name.rpartition(".")
            # layers.0.self_attn.q_proj is /layers.0/self_attn/q_proj in the graph
            place = layer.replace(".", "/").replace("layers/", "layers.", 1)
            node = nodes.get(f"/{place}/MatMul_quant")
            if name.startswith("conv") and kind == "weight":
                found = constants[f"{name}_add_tensor"]
            elif name.startswith("groupnorm"):
                found = constants[_of_group_norm(nodes, kind)]
            elif kind == "weight" and node is not None:
                found = _unquantised(constants, node)
            else:
                found = constants[name]
            state[name] = found.reshape(own.shape)
        encoder.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, ValueError, IndexError) as error:
        raise TrainerError(f"{path} is not Moonshine tiny's encoder: {error}") from None
    return encoder.eval()


def _of_group_norm(nodes: dict[str, list[str]], kind: str) -> str:
    name = "/groupnorm/Mul" if kind == "weight" else "/groupnorm/Add"
    return next(given for given in nodes[name] if given.startswith("onnx::"))


def _unquantised(constants: dict[str, Tensor], inputs: list[str]) -> Tensor:
    name = next(given for given in inputs if given.endswith("_quantized") and given in constants)
    stem = name.removesuffix("_quantized")
    zero, scale = constants[f"{stem}_zero_point"], constants[f"{stem}_scale"]
    # ONNX multiplies from the right
    return ((constants[name].float() - zero.float()) * scale).T


def load_package() -> Moonshine:
    """Moonshine tiny out of the package `moonshine-voice`.

    Raises
    ------
    TrainerError
        it is not installed, or not what it should be.
    """
    return Moonshine(import_ort(model_path()), PACKAGE)
