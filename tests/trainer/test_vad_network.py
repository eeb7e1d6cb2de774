"""The voice-activity front end, network, graph, and their agreement."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from serd.inference.manifest import load_vad_manifest, verify_file
from serd.inference.schema import VadManifest
from serd.vad.network import NetworkDetector, open_network
from trainer.errors import TrainerError
from trainer.pcm import Int16
from trainer.vad.exporting import build_manifest, detect, export, parity, streamed
from trainer.vad.frontend import LOG_FLOOR, Frontend
from trainer.vad.graph import build_graph
from trainer.vad.network import RATES_HZ, Network, widen
from trainer.vad.scoring import Score
from trainer.vad.settings import (
    SHIPPED_RECIPE,
    FrontendSettings,
    NetworkSettings,
    VadRecipe,
    load_vad_recipe,
)
from trainer.vad.training import torch_listener

FRONTEND = FrontendSettings(low=12, high=4)


def recipe(layers: int = 2) -> VadRecipe:
    return load_vad_recipe(SHIPPED_RECIPE).model_copy(
        update={
            "frontend": FRONTEND,
            "network": NetworkSettings(dense=10, hidden=8, layers=layers),
        }
    )


def network(layers: int = 2) -> Network:
    torch.manual_seed(3)
    made = Network(FRONTEND, recipe(layers).network)
    with torch.no_grad():
        made.mean.uniform_(-12, -8)
        made.scale.uniform_(0.2, 0.4)
        made.head.weight.mul_(10)
    return made.eval()


def noise(rate_hz: int, rows: int = 3, frames: int = 20) -> Int16:
    rng = np.random.default_rng(rate_hz)
    level = np.array([3.0, 300.0, 9000.0])[:rows, None] * np.exp(rng.normal(size=(rows, 1)))
    samples = rng.normal(0, level, (rows, frames * rate_hz * 32 // 1000))
    return np.clip(samples, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_bands_are_those_of_a_fourier_transform(rate_hz: int) -> None:
    frontend = Frontend(FRONTEND, rate_hz)
    size = frontend.size
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    samples = np.random.default_rng(0).normal(0, 0.1, size)
    power = np.abs(np.fft.rfft(samples * window)) ** 2
    power /= np.sum(window**2) * rate_hz / 8000
    # The matrix has only the bins that a band uses.
    full = np.concatenate(
        [
            frontend._filters(rate_hz, 12, 60, 3800),
            *([frontend._filters(rate_hz, 4, 3800, 7600)] if rate_hz == 16_000 else []),
        ]
    )
    expected = np.log(full @ power + LOG_FLOOR)
    got = frontend.windows(torch.from_numpy(samples).float()[None])[0].numpy()
    assert np.allclose(got, expected, atol=1e-3)


def test_both_rates_hear_the_same_below_4_khz() -> None:
    time = np.arange(16_000) / 16_000
    pitches = np.array([[120.0], [410.0], [1300.0], [2900.0]])
    wide = 0.05 * np.sin(2 * np.pi * pitches * time + pitches).sum(axis=0)
    low, high = Frontend(FRONTEND, 8000), Frontend(FRONTEND, 16_000)
    narrow = torch.from_numpy(wide[::2].copy()).float()[None, : 20 * 256]
    one = low.recording(narrow)[0, 2:].reshape(-1, 2, 12)
    two = high.recording(torch.from_numpy(wide).float()[None, : 20 * 512])[0, 2:]
    both = two.reshape(-1, 2, 16)[..., :12]
    loud = one > one.max() - 8
    assert loud.any()
    assert torch.allclose(one[loud], both[loud], atol=0.05)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_recording_is_its_frames_with_their_contexts(rate_hz: int) -> None:
    frontend = Frontend(FRONTEND, rate_hz)
    audio = torch.from_numpy(noise(rate_hz).astype(np.float32) / 32768)
    whole = frontend.recording(audio)
    padded = torch.nn.functional.pad(audio, (frontend.context, 0))
    for k in range(whole.shape[1]):
        start = k * frontend.size
        piece = padded[:, start : start + frontend.context + frontend.size]
        assert torch.allclose(frontend(piece), whole[:, k], atol=1e-4)


def test_narrow_rows_do_not_hear_the_bands_above() -> None:
    made = network()
    features = torch.randn(2, 5, 32)
    other = features.reshape(2, 5, 2, 16).clone()
    other[..., 12:] += 3
    narrow = torch.tensor([False, True])
    one = made.standardise(features, narrow)
    two = made.standardise(other.flatten(2), narrow)
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_widened_features_stand_where_those_of_16_khz_do() -> None:
    wide = widen(torch.arange(24.0)[None], FRONTEND)[0].reshape(2, 16)
    assert torch.equal(wide[:, :12].flatten(), torch.arange(24.0))
    assert torch.allclose(wide[:, 12:], torch.tensor(LOG_FLOOR).log())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_graph_frame_by_frame_is_the_network_on_the_whole(layers: int) -> None:
    made = network(layers)
    graph = build_graph(made).SerializeToString()
    manifest = VadManifest.model_validate_json(json.dumps(build_manifest(recipe(layers), graph, 1)))
    recordings = [(rate_hz, noise(rate_hz)) for rate_hz in RATES_HZ]
    assert parity(made, streamed(manifest, graph), recordings) < 1e-5
    spread = torch_listener(made)(noise(8000), 8000)
    assert np.ptp(spread) > 0.05


def test_parity_is_a_gate() -> None:
    made = network()
    with pytest.raises(TrainerError, match="nothing was exported"):
        parity(made, lambda samples, _: np.zeros((len(samples), 20), np.float32),
               [(8000, noise(8000))])  # fmt: skip


def test_rows_are_the_same_in_any_batch() -> None:
    graph = build_graph(network()).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    manifest = VadManifest.model_validate_json(json.dumps(build_manifest(recipe(), graph, 1)))
    for rate_hz in RATES_HZ:
        samples = np.concatenate([noise(rate_hz)] * 7)
        together = detect(NetworkDetector(session, manifest, rate_hz, 21), samples)
        for row in range(3):
            alone = detect(NetworkDetector(session, manifest, rate_hz, 1), samples[row : row + 1])
            assert np.array_equal(alone[0], together[row])


def test_export_writes_what_the_daemon_loads(tmp_path: Path) -> None:
    made = network()
    figures = [
        Score("near-16k", "serd-vad", 0.9, 0.8, 0.1),
        Score("near-16k", "silero", 0.8, 0.7, 0),
    ]
    recordings = [(rate_hz, noise(rate_hz)) for rate_hz in RATES_HZ]
    written = export(made, recipe(), recordings, lambda listen: figures, tmp_path, 3, "A note.")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "serd-vad.json",
        "serd-vad.md",
        "serd-vad.onnx",
    ]
    manifest = load_vad_manifest(written.manifest)
    assert verify_file(manifest) == written.onnx
    assert manifest.state_shape == (2, "batch", 8)
    detector = NetworkDetector(open_network(manifest, 1), manifest, 8000, 3)
    expected = torch_listener(made)(noise(8000), 8000)
    assert np.allclose(detect(detector, noise(8000)), expected, atol=1e-5)
    card = written.card.read_text()
    assert "# serd-vad, version 3" in card
    assert "A note." in card
    assert "| near-16k | 0.900 | 0.80 | 0.100 | 0.800 |" in card


def test_export_says_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(TrainerError, match="cannot be written"):
        export(network(), recipe(), [(8000, noise(8000))], lambda _: [], place)
