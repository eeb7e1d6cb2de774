"""Files in, emotions out; and those that cannot be read."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from click.testing import CliRunner, Result

from serd.inference.manifest import load_emotion_manifest
from trainer.audio import load_clips
from trainer.cli import main
from trainer.commands.common import EXIT_DATA
from trainer.corpora import Utterance
from trainer.errors import TrainerError
from trainer.evaluate import predict_clips
from trainer.metrics import Float64
from trainer.predicting import Listener, decode_any, find_listener, listen
from trainer.predictions import Condition

RATE_HZ = 22_050


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", *(str(a) for a in arguments)])


def _sound(seconds: float) -> Float64:
    """A voice-like tone between two silences of half a second."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 8))
    voice = 0.2 * tone * (1.2 + np.sin(2 * np.pi * 4 * time))
    silence = np.zeros(RATE_HZ // 2)
    return np.concatenate([silence, voice, silence])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    sf.write(folder / "short.wav", _sound(1.5), RATE_HZ)
    sf.write(folder / "long.flac", np.stack([_sound(5.0), _sound(5.0)], axis=1), RATE_HZ)
    (folder / "broken.wav").write_bytes(b"RIFF, and then nothing")
    sf.write(folder / "empty.wav", np.zeros(0), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def shipped() -> Listener:
    return find_listener("serd-crnn")


@pytest.mark.parametrize("whole_file", [False, True])
def test_scores_are_those_of_the_evaluation(
    shipped: Listener, files: Path, whole_file: bool
) -> None:
    paths = [files / "short.wav", files / "long.flac"]
    clips = load_clips([Utterance(p, "mine", "s", "neutral", "en") for p in paths])
    condition: Condition = "whole-file" if whole_file else "clean"
    (expected,) = predict_clips(shipped.hear, clips, "test", shipped.labels, [condition])
    scores = expected.scores(shipped.temperature)
    for row, path in enumerate(paths):
        heard = listen(shipped, path, whole_file)
        assert heard.whole.scores == pytest.approx(scores[row], abs=1e-5)
        assert len(heard.segments) == (expected.owner == row).sum()
        assert heard.whole.start_s == (0.0 if whole_file else pytest.approx(0.3, abs=0.05))


def test_json_tells_files_segments_and_faults(files: Path) -> None:
    result = CliRunner().invoke(
        main,
        ["predict", "--json", "--segments"]
        + [str(files / name) for name in ("short.wav", "broken.wav", "gone.wav", "long.flac")],
    )
    assert result.exit_code == EXIT_DATA
    content = json.loads(result.stdout)
    assert re.match(r"serd-crnn-\d+@sha256:", content["model"])
    short, broken, gone, long = content["files"]
    assert "cannot be read" in broken["error"]
    assert "does not exist" in gone["error"]
    assert str(files / "broken.wav") in result.stderr
    assert list(short["scores"]) == content["labels"]
    assert sum(short["scores"].values()) == pytest.approx(1.0, abs=1e-4)
    assert short["score"] == max(short["scores"].values())
    assert len(short["segments"]) == 1
    spans = [(part["start_s"], part["end_s"]) for part in long["segments"]]
    assert [round(end - start, 3) for start, end in spans] == [3.0] * len(spans)
    assert len(spans) >= 3
    assert spans[-1][1] == long["end_s"]


def test_csv_has_a_line_a_file_and_segment(files: Path) -> None:
    result = _call("--csv", "--segments", files / "short.wav", files / "long.flac")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["part"] for row in rows].count("file") == 2
    assert len(rows) > 5
    manifest = load_emotion_manifest(Path("serd/models/serd-crnn.json").resolve())
    assert list(rows[0])[-len(manifest.labels) :] == list(manifest.labels)
    for row in rows:
        scores = [float(row[label]) for label in manifest.labels]
        assert float(row["score"]) == max(scores)
        assert row["label"] == manifest.labels[int(np.argmax(scores))]
        low = float(row["score"]) < manifest.calibration.abstain_below
        assert row["abstained"] == ("yes" if low else "no")


def test_a_folder_is_all_its_files_and_the_bad_do_not_stop_the_good(files: Path) -> None:
    result = _call(files, "--segments")
    assert result.exit_code == EXIT_DATA
    for name in ("broken.wav", "empty.wav"):
        assert f"Error: {files / name}" in result.stderr
    lines = result.stdout.splitlines()
    assert any(line.startswith(f"{files / 'long.flac'}: ") for line in lines)
    assert any(" to " in line for line in lines)


def test_what_libsndfile_cannot_read_is_read_all_the_same(tmp_path: Path, files: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "phone.m4a"
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            _sound(1.5).astype(np.float32)[None, :], format="fltp", layout="mono"
        )
        frame.sample_rate = RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    found, expected = decode_any(path), decode_any(files / "short.wav")
    assert abs(len(found) - len(expected)) < 4_000
    assert np.abs(found).max() > 0.5 * np.abs(expected).max()
    with pytest.raises(TrainerError, match=r"broken\.wav cannot be read"):
        decode_any(files / "broken.wav")


def test_models_by_path_and_models_that_are_not(tmp_path: Path, files: Path) -> None:
    for suffix in (".json", ".onnx"):
        shutil.copy(Path("serd/models/serd-crnn").with_suffix(suffix), tmp_path)
    for model in (tmp_path, tmp_path / "serd-crnn.json", tmp_path / "serd-crnn.onnx"):
        assert _call(files / "short.wav", "--model", model).exit_code == 0
    (tmp_path / "serd-crnn.onnx").write_bytes(b"another")
    result = _call(files / "short.wav", "--model", tmp_path)
    assert result.exit_code == EXIT_DATA
    assert "sha256" in result.output.lower()
    assert "did you mean serd-crnn?" in _call(files / "short.wav", "--model", "serd-crn").output
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "not the folder of an experiment" in _call(files / "short.wav", "--model", empty).output


def test_a_trained_run_predicts(made_up: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    text = tiny_recipe.read_text("utf-8").replace("epochs = 4", "epochs = 1")
    tiny_recipe.write_text(text + '[[protocols]]\nkind = "held-out"\n[[protocols]]\nkind = "all"\n')
    run, places = tmp_path / "run", ["--data", str(made_up), "--cache", str(tmp_path / "cache")]
    train = CliRunner().invoke(main, ["train", str(tiny_recipe), "--out", str(run), *places])
    assert train.exit_code == 0, train.output
    wav = made_up / "corpora" / "emodb" / "09a01Wa.wav"
    for model, name in (
        (run, "tiny all/crnn/everyone"),
        (run / "held-out" / "crnn" / "split", "tiny held-out/crnn/split"),
    ):
        result = _call(wav, "--json", "--model", model)
        assert result.exit_code == 0, result.output
        content = json.loads(result.stdout)
        assert content["model"] == name
        assert content["labels"] == ["neutral", "sad", "angry"]
        assert "no held-out speakers" not in result.stderr
    both = find_listener(str(run)), find_listener(str(run / "held-out"))
    assert both[0].temperature == both[1].temperature
