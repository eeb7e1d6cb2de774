"""Model manifests: the JSON file beside every ONNX file, and the checks on both.

A manifest says what a model is, what it eats and answers, how it was calibrated, what it was
trained on, how well it did and which exact file it speaks of. Everything that does not agree is
a `ModelError` whose message starts with the manifest's path and names the field.

Codes: ``model_unknown``, ``model_ambiguous``, ``manifest_missing``, ``manifest_syntax``,
``manifest_kind``, ``manifest_version``, ``manifest_unknown_key``, ``manifest_missing_key``,
``manifest_value``, ``model_file_missing``, ``model_package_missing``, ``model_sha256``,
``window_too_long``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serd.errors import ModelError
from serd.inference.schema import EmotionManifest, FileReference, Manifest, VadManifest

__all__ = [
    "EmotionManifest",
    "Manifest",
    "VadManifest",
    "file_sha256",
    "load_emotion_manifest",
    "load_manifest",
    "load_vad_manifest",
    "model_file",
    "resolve_model",
    "shipped_models",
    "verify_file",
    "verify_unpadded_file",
]

_KINDS: dict[str, type[EmotionManifest | VadManifest]] = {
    "emotion": EmotionManifest,
    "vad": VadManifest,
}


def load_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest file; the model file itself is not looked at.

    Raises
    ------
    ModelError
        The file is missing, no JSON (with line and column), of an unknown kind or version, has
        an unknown key (with the nearest valid one), lacks one or holds a wrong value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            "manifest_missing", f"{path}: cannot be read: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError("manifest_syntax", f"{path}: is not UTF-8: {error}") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(
            "manifest_syntax",
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}",
        ) from error
    except RecursionError:
        raise ModelError("manifest_syntax", f"{path}: is nested too deeply") from None
    if not isinstance(content, dict):
        raise ModelError("manifest_syntax", f"{path}: must be a JSON object")
    kind = content.get("kind")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ModelError(
            "manifest_kind", f"{path}: kind: must be one of {', '.join(_KINDS)}, not {kind!r}"
        )
    try:
        manifest = model.model_validate_json(text)
    except ValidationError as error:
        raise _refusal(path, model, error) from None
    manifest.read_from(path)
    return manifest


def load_emotion_manifest(path: str | Path) -> EmotionManifest:
    """`load_manifest` of kind ``emotion``; another kind is ModelError ``manifest_kind``."""
    manifest = load_manifest(path)
    if isinstance(manifest, EmotionManifest):
        return manifest
    raise ModelError("manifest_kind", f"{path}: kind: must be emotion here, not {manifest.kind}")


def load_vad_manifest(path: str | Path) -> VadManifest:
    """`load_manifest` of kind ``vad``; another kind is ModelError ``manifest_kind``."""
    manifest = load_manifest(path)
    if isinstance(manifest, VadManifest):
        return manifest
    raise ModelError("manifest_kind", f"{path}: kind: must be vad here, not {manifest.kind}")


def model_file(manifest: Manifest) -> Path:
    """Path of the ONNX file that the manifest speaks of.

    Raises
    ------
    ModelError
        ``model_package_missing``: the distribution is not installed; ``model_file_missing``: the
        file is not where the manifest says.
    """
    return _find(manifest, manifest.file, "file")


def verify_file(manifest: Manifest) -> Path:
    """Path of the ONNX file, after its SHA-256 was compared with the manifest's.

    Raises
    ------
    ModelError
        ``model_sha256`` when the file is another one, and the errors of `model_file`.
    """
    return _verify(manifest, manifest.file, "file")


def verify_unpadded_file(manifest: EmotionManifest) -> Path | None:
    """`verify_file` of the graph for rows without padding; None when the manifest has none."""
    if manifest.unpadded is None:
        return None
    return _verify(manifest, manifest.unpadded.file, "unpadded.file")


def _find(manifest: Manifest, reference: FileReference, field: str) -> Path:
    if reference.package is None:
        if manifest.path is None:
            raise ModelError(
                "model_file_missing",
                f"{manifest.where}: {field}.path: relative to a manifest that has no file",
            )
        folder = manifest.path.parent
    else:
        folder = _package_folder(manifest, reference.package, reference.module, field)
    path = folder / reference.path
    if not path.is_file():
        raise ModelError("model_file_missing", f"{manifest.where}: {field}.path: no file {path}")
    return path


def _verify(manifest: Manifest, reference: FileReference, field: str) -> Path:
    path = _find(manifest, reference, field)
    try:
        actual = file_sha256(path)
    except OSError as error:
        raise ModelError(
            "model_file_missing",
            f"{manifest.where}: {field}.path: {path}: {error.strerror or error}",
        ) from error
    if actual != reference.sha256:
        raise ModelError(
            "model_sha256",
            f"{manifest.where}: {field}.sha256: is {reference.sha256}, but {path} has {actual}",
        )
    return path


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file as 64 lower-case hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_models() -> list[Manifest]:
    """The manifests that come with serd, by name. Their files may need a package to be there."""
    return [load_manifest(path) for path in _shipped_paths()]


def resolve_model(name_or_path: str | Path) -> Path:
    """Find the manifest that a user means.

    A plain name is a shipped model. Anything else is a path: a manifest (``*.json``), an ONNX
    file with its manifest beside it, or a folder that holds exactly one manifest.

    Raises
    ------
    ModelError
        ``model_unknown``, ``manifest_missing`` or ``model_ambiguous``.
    """
    shipped = {path.stem: path for path in _shipped_paths()}
    wanted = str(name_or_path)
    if wanted in shipped:
        return shipped[wanted]
    path = Path(wanted).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.json"))
        if not found:
            raise ModelError("manifest_missing", f"{path}: has no manifest (*.json)")
        if len(found) > 1:
            names = ", ".join(candidate.name for candidate in found)
            raise ModelError("model_ambiguous", f"{path}: name one of its manifests: {names}")
        return found[0]
    if path.suffix == ".onnx" and path.is_file():
        manifest = path.with_suffix(".json")
        if not manifest.is_file():
            raise ModelError("manifest_missing", f"{path}: has no manifest {manifest.name} beside")
        return manifest
    if path.is_file():
        return path
    names = ", ".join(shipped) or "none"
    near = get_close_matches(wanted, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ModelError(
        "model_unknown", f"model {wanted!r}: no such file or shipped model ({names}){hint}"
    )


def _shipped_paths() -> list[Path]:
    folder = resources.files("serd").joinpath("models")
    if not folder.is_dir():
        return []
    entries = (Path(str(entry)) for entry in folder.iterdir())
    return sorted(entry for entry in entries if entry.suffix == ".json")


def _package_folder(manifest: Manifest, package: str, module: str | None, field: str) -> Path:
    name = module or package.replace("-", "_")
    # A loaded module without a spec makes find_spec raise ValueError; it is no package either.
    try:
        spec = find_spec(name)
    except ValueError:
        spec = None
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not locations:
        raise ModelError(
            "model_package_missing",
            f"{manifest.where}: {field}.package: {package} is not installed "
            f"(pip install {package})",
        )
    return Path(locations[0])


def _refusal(path: Path, model: type[BaseModel], error: ValidationError) -> ModelError:
    details = error.errors(include_url=False)
    codes = [_code(detail) for detail in details]
    lines = [f"{path}: {_describe(model, detail)}" for detail in details]
    return ModelError(codes[0], "\n".join(lines))


def _code(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "manifest_unknown_key"
    if detail["type"] == "missing":
        return "manifest_missing_key"
    return "manifest_version" if detail["loc"] == ("manifest_version",) else "manifest_value"


def _describe(model: type[BaseModel], detail: ErrorDetails) -> str:
    location = detail["loc"]
    field = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        valid = list(_fields_at(model, location[:-1]))
        near = get_close_matches(str(location[-1]), valid, n=1)
        hint = f"; did you mean {near[0]}?" if near else f" (known: {', '.join(valid)})"
        return f"{field}: unknown key{hint}"
    if detail["type"] == "missing":
        return f"{field}: is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    if isinstance(given, str | int | float | None):
        message = f"{message} (it is {json.dumps(given)})"
    return f"{field}: {message}" if field else message


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> Iterator[str]:
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str) and current is not None:
            field = current.model_fields.get(part)
            current = next(_models_in(field.annotation), None) if field is not None else None
    return iter(current.model_fields) if current is not None else iter(())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
