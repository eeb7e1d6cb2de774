"""Training of the voice-activity model on a made-up bank: it learns, goes on, tells mistakes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from serd.types import frame_samples
from trainer.cache import save_atomically
from trainer.commands.vad import vad
from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16
from trainer.vad.bank import Bank, Featurer, _shards, load_bank
from trainer.vad.filling import Filling
from trainer.vad.meetings import CONDITIONS as MEETINGS
from trainer.vad.meetings import load_meetings, through
from trainer.vad.mixture import ALONE, CONDITIONS, Sounds
from trainer.vad.scoring import mean_auc, score, score_meetings, score_validation
from trainer.vad.settings import SHIPPED_RECIPE, VadRecipe, load_vad_recipe
from trainer.vad.training import load_network, torch_listener, train

FRAMES = 48


def audio(rate_hz: int, seed: int) -> tuple[Int16, Float32]:
    """Faint noise with a loud part in the middle, and its label."""
    rng = np.random.default_rng(seed)
    size = frame_samples(rate_hz)
    start, end = sorted(rng.choice(np.arange(4, FRAMES - 4), 2, replace=False))
    label = np.zeros(FRAMES, np.float32)
    label[start : end + 4] = 1
    time = np.arange(FRAMES * size) / rate_hz
    voice = sum(np.sin(2 * np.pi * k * 150 * time) for k in range(1, 10))
    samples = rng.normal(0, 20, len(time)) + 1500 * voice * np.repeat(label, size)
    return samples.astype(np.int16), label


def tiny_recipe(epochs: int = 6) -> VadRecipe:
    content = load_vad_recipe(SHIPPED_RECIPE).model_dump()
    content["mixture"] = {
        "train": 24,
        "hard": 8,
        "alone": 8,
        "validation": 2,
        "seconds": FRAMES * 0.032,
    }
    content["frontend"] = {"low": 12, "high": 4}
    content["network"] = {"dense": 12, "hidden": 8, "layers": 1}
    content["train"] |= {"epochs": epochs, "batch_size": 8, "frames": 16, "learning_rate": 0.02}
    return VadRecipe.model_validate(content)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    featurer = Featurer(tiny_recipe().frontend)
    for number, shard in enumerate(_shards(tiny_recipe(), folder)):
        rows = []
        for k in range(len(shard.keys)):
            rate_hz = (8000, 16_000)[k % 2]
            samples, label = audio(rate_hz, 100 * number + k)
            if shard.style is ALONE:
                samples = np.random.default_rng(k).normal(0, 900, len(samples)).astype(np.int16)
                label = 0 * label
            rows.append((featurer(samples, rate_hz), rate_hz == 16_000, label))
        labels = np.stack([row[2] for row in rows]).astype(np.float16)
        save_atomically(
            shard.path,
            features=np.stack([row[0] for row in rows]).astype(np.float16),
            wide=np.array([row[1] for row in rows]),
            label=labels,
            clean=labels,
            noisy=labels,
        )
    arrays = {}
    for number, (name, style) in enumerate(CONDITIONS.items()):
        assert style.rate_hz is not None
        made = [audio(style.rate_hz, 9000 + 10 * number + k) for k in range(2)]
        arrays[f"samples {name}"] = np.stack([samples for samples, _ in made])
        arrays[f"label {name}"] = np.stack([label for _, label in made])
    save_atomically(folder / "validation.npz", **arrays)
    return folder


def test_it_learns_at_both_rates(bank: Path, tmp_path: Path) -> None:
    best = train(tiny_recipe(), bank, tmp_path / "run")
    recipe, network = load_network(best)
    assert recipe == tiny_recipe()
    scores = score_validation("ours", torch_listener(network), bank)
    assert [item.condition for item in scores] == list(CONDITIONS)
    assert mean_auc(scores) > 0.97
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 6
    assert float(rows[-1][1]) < 0.6 * float(rows[0][1])


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(epochs=3)
    train(recipe, bank, tmp_path / "whole")
    import trainer.vad.training as module

    plain = module._epoch

    def killed(*arguments: object) -> float:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return plain(*arguments)  # type: ignore[arg-type]  # as it was called

    with monkeypatch.context() as patch:
        patch.setattr(module, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, bank, tmp_path / "halves")
    train(recipe, bank, tmp_path / "halves")
    one, two = (
        torch.load(tmp_path / name / "last.pt", weights_only=True)["model"]
        for name in ("whole", "halves")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_of_another_recipe_is_refused(bank: Path, tmp_path: Path) -> None:
    train(tiny_recipe(epochs=1), bank, tmp_path)
    with pytest.raises(TrainerError, match="another recipe"):
        train(tiny_recipe(epochs=2), bank, tmp_path)


def test_a_loss_that_diverges_is_told(bank: Path, tmp_path: Path) -> None:
    content = tiny_recipe().model_dump()
    content["train"]["learning_rate"] = 1e38
    with pytest.raises(TrainerError, match=r"not finite.*train\.learning_rate"):
        train(VadRecipe.model_validate(content), bank, tmp_path)


def test_an_unfinished_bank_is_told(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="not finished"):
        load_bank(tiny_recipe(), tmp_path)
    whole = load_bank(tiny_recipe(), bank)
    assert isinstance(whole, Bank)
    assert whole.features.shape == (40, FRAMES, 32)


def test_sounds_are_laid_into_pauses_alone(bank: Path) -> None:
    whole = load_bank(tiny_recipe(), bank)
    assert whole.alone.sum() == 8
    rows = np.arange(10)
    settings = tiny_recipe().train.model_copy(update={"fill": 1.0, "fill_db": (0.0, 0.0)})
    filling = Filling(whole, rows, settings, np.random.default_rng(0))
    own = torch.from_numpy(whole.features[rows, 8:24]).float()
    got = own.clone()
    label = whole.label[rows, 8:24]
    filling.lay_into(got, label, 8)
    spoken = torch.from_numpy(label > 0)
    assert torch.equal(got[spoken], own[spoken])
    assert (got[~spoken] >= own[~spoken]).all()
    raised = (got - own)[~spoken].mean()
    assert raised > 0.5
    # At no more than the row's own mean power.
    low = torch.arange(32) % 16 < 12
    level = torch.from_numpy(whole.level[rows])[:, None].expand(-1, 16)[~spoken]
    power = torch.logsumexp(got[~spoken][:, low], 1) - np.log(24)
    assert (power < level + 3).all()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_what_is_no_checkpoint_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "best.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainerError, match=r"best\.pt"):
        load_network(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 3", "name"),
        ("nonsense", "no TOML"),
        ('name = "x"\n[speech]\nvalidation = ["a/b"]\nvoices = 3', "speech.voices"),
        ('name = "x"\n[targets]\nlabel = 0.9', "targets.*sum to 1"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(TrainerError, match=message):
        load_vad_recipe(path)


def test_scores_of_known_answers() -> None:
    label = np.array([[0, 0, 1, 1]], np.float32)
    perfect = score("x", "c", label, np.array([[0.1, 0.2, 0.6, 0.4]], np.float32))
    assert (perfect.auc, perfect.found, perfect.false) == (1.0, 0.5, 0.0)
    blind = score("x", "c", label, np.full((1, 4), 0.7, np.float32))
    assert (blind.auc, blind.found, blind.false) == (0.5, 1.0, 1.0)
    with pytest.raises(TrainerError, match="only one"):
        score("x", "c", np.ones((1, 4), np.float32), label)


@pytest.fixture
def meetings(tmp_path: Path) -> Path:
    import soundfile

    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.001, 32_000)
    samples[8000:16_000] += rng.normal(0, 0.2, 8000)
    soundfile.write(tmp_path / "one.flac", samples, 16_000)
    turn = "SPEAKER one 1 0.5 0.5 <NA> <NA> A <NA> <NA>\n"
    (tmp_path / "turns.rttm").write_text(turn)
    return tmp_path


def test_meetings_have_a_label_where_somebody_has_a_turn(meetings: Path) -> None:
    (meeting,) = load_meetings(meetings)
    spoken = np.flatnonzero(meeting.label)
    assert (spoken[0], spoken[-1], len(meeting.label)) == (16, 30, 62)


def test_meetings_in_every_condition(meetings: Path) -> None:
    found = load_meetings(meetings)
    sounds = Sounds((np.random.default_rng(1).normal(size=9000).astype(np.float32),), (), ())
    for condition in MEETINGS:
        one, two = (list(through(found, condition, sounds)) for _ in range(2))
        (_, rate_hz, samples) = one[0]
        assert len(samples) == 2 * rate_hz
        assert np.array_equal(samples, two[0][2])

    def loud(samples: Int16, rate_hz: int) -> Float32:
        frames = samples.reshape(len(samples), -1)[:, : 62 * frame_samples(rate_hz)]
        power = frames.reshape(len(samples), 62, -1).astype(np.float64).std(axis=2)
        return np.asarray(power / (power + 1000), np.float32)

    scores = score_meetings("loudness", loud, found, sounds)
    assert [item.condition for item in scores][1:] == [f"meetings {name}" for name in MEETINGS][
        : len(scores)
    ]
    assert all(item.auc > 0.9 for item in scores)


@pytest.mark.parametrize(
    ("rttm", "message"),
    [(None, "no turns"), ("SPEAKER one\n", "line 1"), ("SPEAKER two 1 0 1 a\n", "speaks of it")],
)
def test_meetings_that_cannot_be_used_are_told(
    meetings: Path, rttm: str | None, message: str
) -> None:
    (meetings / "turns.rttm").unlink()
    if rttm is not None:
        (meetings / "turns.rttm").write_text(rttm)
    with pytest.raises(TrainerError, match=message):
        load_meetings(meetings)


def test_the_command_tells_a_mistake_without_a_traceback(tmp_path: Path) -> None:
    done = CliRunner().invoke(vad, ["evaluate", str(tmp_path)])
    assert done.exit_code == 65
    assert "best.pt cannot be read" in done.output
