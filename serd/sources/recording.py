"""What a microphone's callback writes and the ingest thread reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serd.channel import Waker
from serd.clock import Clock
from serd.sources.devices import DeviceInfo
from serd.types import Int16Array

_NS = 1_000_000_000
# Sound servers may take a second or two to deliver the first block. A device that has delivered is
# taken for gone after so many blocks' time without any, within limits.
_FIRST_BLOCK_NS = 5 * _NS
_STALL_BLOCKS = 50
_STALL_MIN_NS = _NS
_STALL_MAX_NS = 5 * _NS
_MAX_CAPTURE_AGE_S = 10.0


@dataclass(frozen=True, slots=True)
class Block:
    """One block as it lies in the queue; `samples` is int16 ``[n, channels]``."""

    samples: Int16Array
    captured_at_ns: int
    lost_before: int


class Recording:
    """What one opening of a device records: a queue of blocks with one writer and one reader.

    PortAudio's thread writes: it moves `_written` after the block is in place. The ingest thread
    reads: it moves `_read` when it is done with a block.
    """

    def __init__(
        self,
        device: DeviceInfo,
        sample_rate_hz: int,
        channels: int,
        block_ms: int,
        queue_blocks: int,
        clock: Clock,
        waker: Waker,
    ) -> None:
        self.device = device
        self.sample_rate_hz = sample_rate_hz
        self.ended = False
        self.peak_blocks = 0
        block = sample_rate_hz * block_ms // 1000
        self._queue = np.zeros((queue_blocks, block, channels), np.int16)
        self._captured_at_ns = [0] * queue_blocks
        self._lost_before = [0] * queue_blocks
        self._written = 0
        self._read = 0
        self._clock = clock
        self._waker = waker
        blocks_ns = _STALL_BLOCKS * block_ms * 1_000_000
        self._stall_ns = min(max(blocks_ns, _STALL_MIN_NS), _STALL_MAX_NS)
        self._silent_at_ns = clock.monotonic_ns() + _FIRST_BLOCK_NS
        self._expected_s = 0.0
        self._lost = 0
        self._overflow_blocks = 0
        self._dropped_blocks = 0
        self._told_overflow_blocks = 0
        self._told_dropped_blocks = 0

    # PortAudio's thread

    def on_block(self, data: memoryview, captured_s: float, now_s: float, overflowed: bool) -> None:
        """Queue a block; see `BlockCallback`."""
        size, block, channels = self._queue.shape
        samples = np.frombuffer(data, np.int16).reshape(block, channels)
        block_s = block / self.sample_rate_hz
        if overflowed:
            self._overflow_blocks += 1
            self._lost += self._overflow_samples(captured_s, block)
        self._expected_s = captured_s + block_s
        self._silent_at_ns = self._clock.monotonic_ns() + self._stall_ns
        held = self._written - self._read
        if held == size:
            self._dropped_blocks += 1
            self._lost += block
            return
        slot = self._written % size
        self._queue[slot] = samples
        age_s = now_s - captured_s
        if captured_s <= 0 or not 0 <= age_s <= _MAX_CAPTURE_AGE_S:
            age_s = block_s
        self._captured_at_ns[slot] = self._clock.unix_ns() - round(age_s * _NS)
        self._lost_before[slot], self._lost = self._lost, 0
        self._written += 1
        self.peak_blocks = max(self.peak_blocks, held + 1)
        self._waker.wake()

    def on_end(self) -> None:
        """Note that PortAudio has ended the stream."""
        self.ended = True
        self._waker.wake()

    def _overflow_samples(self, captured_s: float, block: int) -> int:
        """How much the device lost: PortAudio tells that it did, its time stamps how much."""
        if captured_s <= 0 or self._expected_s <= 0:
            return block
        return max(1, round((captured_s - self._expected_s) * self.sample_rate_hz))

    # the ingest thread

    def silent_at_ns(self) -> int:
        """When the device is to be taken for gone if no block comes until then."""
        return self._silent_at_ns

    def peek(self) -> Block | None:
        """The oldest block, valid until `drop_first`."""
        if self._read == self._written:
            return None
        slot = self._read % len(self._queue)
        return Block(self._queue[slot], self._captured_at_ns[slot], self._lost_before[slot])

    def drop_first(self) -> None:
        """Give the oldest block's place back."""
        self._read += 1

    def take_counts(self) -> dict[str, int]:
        """Overflows since the last call."""
        overflows, dropped = self._overflow_blocks, self._dropped_blocks
        fresh = {
            "overflow_blocks": overflows - self._told_overflow_blocks,
            "queue_dropped_blocks": dropped - self._told_dropped_blocks,
        }
        self._told_overflow_blocks, self._told_dropped_blocks = overflows, dropped
        return fresh

    def take_lost(self) -> int:
        """Samples lost after the last block; for a session that has ended."""
        lost, self._lost = self._lost, 0
        return lost
