"""What the models are given of calls that pause, in a daemon that is given all it can take."""

from __future__ import annotations

import random

import numpy as np

from serd.config.loading import parse
from serd.inference.jobs import SegmentJob
from serd.protocol.writer import TapWriter
from serd.runtime.daemon import Daemon
from serd.types import Encoding, Int16Array
from tests.taps import Collector, Push
