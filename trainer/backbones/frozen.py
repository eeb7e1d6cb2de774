"""What a frozen encoder makes of segments, computed once: `trainer.feature_bank` keeps it."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch

from trainer.models.backbone import Backbone
from trainer.pcm import Float32

_BATCH = 32


def identity(model: Backbone) -> str:
    """Digest of everything that a fixed embedding depends on, but the audio."""
    s = model.settings
    said = (s.encoder, s.layers, s.combine, s.normalise, s.pooling, s.stride)
    digest = hashlib.sha256(repr(("embeddings 3", said)).encode())
    for name, values in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def embed(model: Backbone, audio: Float32, length: npt.NDArray[np.int64]) -> Float32:
    """Embeddings of segments: float32 [segments, embedding_size].

    Parameters
    ----------
    audio
        float32 [segments, samples].
    length
        int64 [segments].
    """
    device = next(model.parameters()).device
    model.eval()
    found = np.zeros((len(length), model.embedding_size), np.float32)
    # Like lengths together: attention over padding is paid for.
    order = np.argsort(length, kind="stable")
    for rows in np.split(order, range(_BATCH, len(order), _BATCH)):
        if not len(rows):
            continue
        longest = min(audio.shape[1], -(-int(length[rows].max()) // 320) * 320)
        heard = torch.from_numpy(audio[rows, :longest]).to(device)
        count = torch.from_numpy(length[rows]).to(device)
        found[rows] = model.pool(*model.steps(heard, count)).float().cpu().numpy()
    return found
