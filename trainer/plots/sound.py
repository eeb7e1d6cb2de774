"""Waveform and log-mel spectrogram of single recordings, on one scale of time and decibels."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
from matplotlib.figure import Figure

from trainer.audio import SAMPLE_RATE_HZ, Int16, to_float
from trainer.plots.recordings import Recording
from trainer.plots.style import MUTED, Chart, draw, label_colours, slug

_COLUMNS = 500
_MELS, _HOP, _N_FFT = 80, 200, 512
_RANGE_DB = 70.0
_TICKS_HZ = (250, 1000, 2000, 4000, 8000)


def envelope(samples: Int16, columns: int = _COLUMNS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time in seconds, lowest and highest value of so many stretches of a recording."""
    values = to_float(samples)
    columns = max(1, min(columns, len(values)))
    edges = np.linspace(0, len(values), columns + 1).astype(np.int64)[:-1]
    low, high = np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
    return (edges + edges[1:2].sum() / 2) / SAMPLE_RATE_HZ, low, high


def log_mel(samples: Int16) -> np.ndarray:
    """Decibels below the loudest point: float32 [mels, frames]."""
    audio = to_float(samples)
    if len(audio) < _N_FFT:
        audio = np.pad(audio, (0, _N_FFT - len(audio)))
    power = librosa.feature.melspectrogram(
        y=audio, sr=SAMPLE_RATE_HZ, n_fft=_N_FFT, hop_length=_HOP, n_mels=_MELS
    )
    return np.asarray(
        librosa.power_to_db(power, ref=max(1e-10, float(power.max())), top_db=_RANGE_DB),
        np.float32,
    )


def sound_charts(examples: Sequence[tuple[Recording, Int16]], labels: Sequence[str]) -> list[Chart]:
    """A chart a recording: samples are int16 [samples] at 16 kHz."""
    if not examples:
        return []
    colours = label_colours(labels)
    longest = max(len(samples) for _, samples in examples) / SAMPLE_RATE_HZ
    charts = []
    for i, (recording, samples) in enumerate(examples, 1):

        def plot(
            figure: Figure, samples: Int16 = samples, colour: str = colours[recording.label]
        ) -> None:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.6])
            time, low, high = envelope(samples)
            upper.fill_between(time, low, high, color=colour, linewidth=0.4)
            peak = max(float(np.abs(to_float(samples)).max()), 1e-4)
            upper.set_ylim(-1.1 * peak, 1.1 * peak)
            upper.set_title(
                f"peak {round(20 * np.log10(peak))} dBFS".replace("-", "−"),
                loc="right",
                fontsize=7.5,
                color=MUTED,
            )
            upper.set_ylabel("amplitude")
            upper.tick_params(axis="x", length=0)
            lower.grid(visible=False)
            image = lower.imshow(
                log_mel(samples),
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=-_RANGE_DB,
                vmax=0,
                interpolation="none",
                extent=(0, len(samples) / SAMPLE_RATE_HZ, 0, _MELS),
            )
            lower.set_yticks(_mel_rows(_TICKS_HZ), [f"{hz / 1000:g}" for hz in _TICKS_HZ])
            lower.set(xlabel="time in s", ylabel="kHz (mel)", xlim=(0, longest))
            bar = figure.colorbar(image, ax=lower, pad=0.015, aspect=14)
            bar.outline.set_visible(False)
            bar.set_ticks([-60, -30, 0])
            bar.ax.set_title("dB", fontsize=7, loc="left")

        kept = (recording.corpus, f"speaker {recording.speaker}", recording.sex, recording.language)
        charts.append(
            draw(
                slug("example", str(i), recording.label),
                recording.label,
                ", ".join([part for part in kept if part] + [recording.path.name]),
                plot,
                height=3.0,
            )
        )
    return charts


def _mel_rows(frequencies_hz: Sequence[float]) -> list[float]:
    """Where frequencies lie among the mel bands."""
    top = librosa.hz_to_mel(SAMPLE_RATE_HZ / 2)
    return [float(librosa.hz_to_mel(hz) / top * _MELS) for hz in frequencies_hz]
