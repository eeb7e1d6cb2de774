"""Degradations of training audio: the voice, the room, noise, level, and the telephone.

Applied after the split, to training utterances only. Functions take and return float32
[samples] at 16 kHz and keep the length unless they say otherwise. SpecAugment, which works on
features, is the models'; `trainer.augment.mixup`, which needs torch, the training loop's.

What each costs on a segment of 3 s, in milliseconds on one core (best of 25):

=============================  ======  =====================================  ======
speed                             0.3  telephone, G.711                          0.3
stretch                           9.9    and its 300 to 3400 Hz                 +0.2
pitch                            11.2    and packet loss: silence, repeat       +0.1
room, 10 ms to 11 s           0.9-5.9    and packet loss: pitch                 +1.0
noise, Gaussian                   0.5    and comfort noise                      +1.1
noise, hold music                 0.1  telephone, G.722                          4.9
babble of four                    0.3  telephone, GSM full rate                  9.7
equaliser                         0.9  telephone, AMR-NB                        11.5
time shift, level, clipping     < 0.1  telephone, Opus at 8 and 16 kHz        24, 40
=============================  ======  =====================================  ======

A copy by the default settings takes 2.8 ms.
"""

from trainer.augment.augmenter import Augmenter, usable_codecs
from trainer.augment.codecs import CODECS, Codec, available_codecs, codec_rate_hz, round_trip
from trainer.augment.levels import change_gain, clip_peaks, equalise, rms, set_level
from trainer.augment.library import ROOMS, NoiseLibrary, load_noise
from trainer.augment.mixing import add_room, babble, excerpt, gaussian, mix_at_snr
from trainer.augment.packets import Concealment, comfort_noise, conceal, lose_packets
from trainer.augment.settings import AugmentSettings
from trainer.augment.telephone import Line, send, telephone
from trainer.augment.voice import change_speed, shift_pitch, shift_time, stretch_time

__all__ = [
    "CODECS",
    "ROOMS",
    "AugmentSettings",
    "Augmenter",
    "Codec",
    "Concealment",
    "Line",
    "NoiseLibrary",
    "add_room",
    "available_codecs",
    "babble",
    "change_gain",
    "change_speed",
    "clip_peaks",
    "codec_rate_hz",
    "comfort_noise",
    "conceal",
    "equalise",
    "excerpt",
    "gaussian",
    "load_noise",
    "lose_packets",
    "mix_at_snr",
    "rms",
    "round_trip",
    "send",
    "set_level",
    "shift_pitch",
    "shift_time",
    "stretch_time",
    "telephone",
    "usable_codecs",
]
