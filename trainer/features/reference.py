"""The same features by librosa itself, for plots and for the tests of the front end."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import numpy.typing as npt

from trainer.features.settings import FEATURES, FeatureName, FrameSettings
from trainer.features.spectral import CHROMA, CONTRAST_BANDS, CONTRAST_FMIN_HZ, CONTRAST_QUANTILE

Float32 = npt.NDArray[np.float32]


def librosa_features(
    samples: Float32,
    names: Sequence[FeatureName] = FEATURES,
    settings: FrameSettings | None = None,
) -> dict[FeatureName, Float32]:
    """Features of one recording, each float32 [rows, frames], not standardised.

    Parameters
    ----------
    samples
        float32 [samples] in [-1, 1] at the settings' rate; shorter than a frame, zeros follow.
    names
        which.
    settings
        the constants; `features` and `summary` are not looked at.
    """
    settings = settings or FrameSettings()
    n_fft, hop, rate = settings.n_fft, settings.hop_length, settings.sample_rate_hz
    samples = np.pad(samples, (0, max(0, n_fft - len(samples))))
    magnitude = np.abs(librosa.stft(samples, n_fft=n_fft, hop_length=hop, center=False))
    power = magnitude**2
    mel = librosa.feature.melspectrogram(
        S=power,
        sr=rate,
        n_fft=n_fft,
        n_mels=settings.n_mels,
        fmin=settings.fmin_hz,
        fmax=settings.fmax_hz,
    )
    mel = librosa.power_to_db(mel)
    mfcc = librosa.feature.mfcc(S=mel, n_mfcc=settings.n_mfcc)
    chroma = librosa.feature.chroma_stft(S=power, sr=rate, n_fft=n_fft, n_chroma=CHROMA, tuning=0)
    found: dict[FeatureName, Float32] = {}
    for name in names:
        match name:
            case "mfcc":
                value = mfcc
            case "mfcc_delta":
                value = librosa.feature.delta(mfcc, order=1, mode="nearest")
            case "mfcc_delta2":
                value = librosa.feature.delta(mfcc, order=2, mode="nearest")
            case "chroma":
                value = chroma
            case "mel":
                value = mel
            case "contrast":
                value = librosa.feature.spectral_contrast(
                    S=magnitude,
                    sr=rate,
                    n_fft=n_fft,
                    fmin=CONTRAST_FMIN_HZ,
                    n_bands=CONTRAST_BANDS,
                    quantile=CONTRAST_QUANTILE,
                )
            case "tonnetz":
                value = librosa.feature.tonnetz(chroma=chroma, sr=rate)
            case "zcr":
                value = librosa.feature.zero_crossing_rate(
                    samples, frame_length=n_fft, hop_length=hop, center=False
                )
            case "rms":
                value = librosa.feature.rms(
                    y=samples, frame_length=n_fft, hop_length=hop, center=False
                )
        found[name] = np.asarray(value, np.float32)
    return found
