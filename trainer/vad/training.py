"""Training of the network on a bank of mixtures."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import trange

from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16
from trainer.saving import write_checkpoint
from trainer.vad.bank import Bank, Featurer, load_bank, load_validation
from trainer.vad.filling import Filling
from trainer.vad.frontend import LOG_FLOOR
from trainer.vad.network import Network
from trainer.vad.scoring import Listener, Score, mean_auc, score
from trainer.vad.settings import VadRecipe

_EVERY_EPOCHS = 3


def torch_listener(network: Network) -> Listener:
    """A network as a detector of whole recordings, each from an empty state."""
    featurer = Featurer(network.frontend_settings)

    def listen(samples: Int16, rate_hz: int) -> Float32:
        features = torch.from_numpy(np.stack([featurer(row, rate_hz) for row in samples]))
        return _probabilities(network, features, rate_hz == 16_000)

    return listen


def _probabilities(network: Network, features: Tensor, wide: bool) -> Float32:
    with torch.inference_mode():
        rows = len(features)
        heard = network.standardise(features, torch.full((rows,), wide))
        logits, _ = network(heard, network.empty_state(rows))
        return np.asarray(torch.sigmoid(logits).numpy(), np.float32)


def fit_standard(network: Network, bank: Bank) -> None:
    """Mean and deviation of each feature over the bank; of high bands over 16 kHz alone."""
    wide = bank.wide
    some = np.asarray(bank.features[:512], np.float32)
    high = ~network.low.numpy()
    mean, deviation = some.mean(axis=(0, 1)), some.std(axis=(0, 1))
    if high.any() and wide[:512].any():
        own = some[wide[:512]][..., high]
        mean[high], deviation[high] = own.mean(axis=(0, 1)), own.std(axis=(0, 1))
    network.mean.copy_(torch.from_numpy(mean))
    network.scale.copy_(torch.from_numpy(1 / np.maximum(deviation, 1e-3)))


def train(recipe: VadRecipe, bank_folder: Path, out: Path, progress: bool = False) -> Path:
    """Train and keep the epoch that validates best: path of `best.pt` under `out`.

    `out` also gets `log.csv`, and `last.pt` with everything that `train` goes on from when it is
    called again after a stop.

    Raises
    ------
    TrainerError
        the loss is not finite any more, `out` holds the run of another recipe, or the bank is
        empty.
    """
    torch.manual_seed(recipe.seed)
    bank = load_bank(recipe, bank_folder)
    validation = _featured_validation(recipe, bank_folder)
    network = Network(recipe.frontend, recipe.network)
    fit_standard(network, bank)
    settings = recipe.train
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    pieces = math.ceil(bank.label.shape[1] / settings.frames)
    per_epoch = max(1, len(bank.wide) // settings.batch_size) * pieces
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _rate(step / (per_epoch * settings.epochs), settings.warm_up)
    )
    out.mkdir(parents=True, exist_ok=True)
    first, best = _resume(recipe, out, network, optimiser, schedule)
    with (out / "log.csv").open("a", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        for epoch in trange(first, settings.epochs, desc="training", disable=not progress):
            loss = _epoch(recipe, network, bank, optimiser, schedule, epoch)
            last = epoch == settings.epochs - 1
            scores = _validate(network, validation) if last or epoch % _EVERY_EPOCHS == 2 else []
            if scores and mean_auc(scores) > best:
                best = mean_auc(scores)
                write_checkpoint(
                    out / "best.pt",
                    {"recipe": recipe.model_dump(), "model": network.state_dict()},
                )
            log.writerow([epoch, f"{loss:.5f}", *(f"{item.auc:.4f}" for item in scores)])
            file.flush()
            state = {
                "recipe": recipe.model_dump(),
                "epoch": epoch + 1,
                "best": best,
                "model": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            }
            write_checkpoint(out / "last.pt", state)
    return out / "best.pt"


def load_network(path: Path) -> tuple[VadRecipe, Network]:
    """A trained network and the recipe it came from.

    Raises
    ------
    TrainerError
        the file is missing or no checkpoint of this trainer.
    """
    try:
        content = torch.load(path, weights_only=True)
        recipe = VadRecipe.model_validate(content["recipe"])
        network = Network(recipe.frontend, recipe.network)
        network.load_state_dict(content["model"])
    except OSError as error:
        raise TrainerError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:
        raise TrainerError(f"{path} is no checkpoint of a voice-activity model: {error}") from None
    return recipe, network.eval()


def _rate(done: float, warm_up: float) -> float:
    if done < warm_up:
        return done / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (done - warm_up) / (1 - warm_up))


def _epoch(
    recipe: VadRecipe,
    network: Network,
    bank: Bank,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    epoch: int,
) -> float:
    settings, weights = recipe.train, recipe.targets
    rng = np.random.default_rng([recipe.seed, 7, epoch])
    order = rng.permutation(len(bank.wide))
    size = min(settings.batch_size, len(order))
    state = network.empty_state(size)
    network.train()
    total, batches = 0.0, 0
    for start in range(0, len(order) - size + 1, size):
        rows = np.sort(order[start : start + size])
        gains_db = rng.uniform(-settings.gain_db, settings.gain_db, size)
        filling = Filling(bank, rows, settings, rng)
        kept = torch.from_numpy(rng.random(size) < settings.carry)
        state = torch.where(kept[None, :, None], state[:, rng.permutation(size)], 0.0)
        # Mixtures are heard in pieces, the state handed on: shorter graphs, more steps.
        for at in range(0, bank.label.shape[1], settings.frames):
            piece = (rows, slice(at, at + settings.frames))
            features = torch.from_numpy(bank.features[piece]).float()
            filling.lay_into(features, bank.label[piece], at)
            features = _louder(features, gains_db)
            target = torch.from_numpy(
                weights.label * bank.label[piece].astype(np.float32)
                + weights.clean * bank.clean[piece].astype(np.float32)
                + weights.noisy * bank.noisy[piece].astype(np.float32)
            )
            heard = network.standardise(features, torch.from_numpy(bank.wide[rows]))
            logits, state = network(heard, state)
            state = state.detach()
            loss = functional.binary_cross_entropy_with_logits(logits, target)
            if not torch.isfinite(loss):
                raise TrainerError(
                    f"The loss is not finite in epoch {epoch}: train.learning_rate is too high?"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_gradient)
            optimiser.step()
            schedule.step()
            total, batches = total + float(loss.detach()), batches + 1
    network.eval()
    return total / batches


def _louder(features: Tensor, gains_db: npt.NDArray[np.float64]) -> Tensor:
    gains = torch.from_numpy(gains_db * math.log(10) / 10).float()[:, None, None]
    return torch.clamp(features + gains, min=math.log(LOG_FLOOR))


_Featured = list[tuple[str, bool, Tensor, Float32]]


def _featured_validation(recipe: VadRecipe, folder: Path) -> _Featured:
    featurer = Featurer(recipe.frontend)
    return [
        (name, rate_hz == 16_000,
         torch.from_numpy(np.stack([featurer(row, rate_hz) for row in samples])), label)
        for name, rate_hz, samples, label in load_validation(folder)
    ]  # fmt: skip


def _validate(network: Network, validation: _Featured) -> list[Score]:
    return [
        score("ours", name, label, _probabilities(network, features, wide))
        for name, wide, features, label in validation
    ]


def _resume(
    recipe: VadRecipe,
    out: Path,
    network: Network,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> tuple[int, float]:
    path = out / "last.pt"
    if not path.is_file():
        return 0, 0.0
    content = torch.load(path, weights_only=True)
    if content["recipe"] != recipe.model_dump():
        raise TrainerError(f"{path} is of another recipe: name another folder or remove it.")
    network.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    schedule.load_state_dict(content["schedule"])
    return int(content["epoch"]), float(content["best"])
