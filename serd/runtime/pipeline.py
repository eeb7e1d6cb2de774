"""The stages between sources and events, put together: the same for the daemon and for replay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serd.clock import Clock
from serd.config.schema import Config
from serd.inference.candidate import Candidate
from serd.inference.manifest import resolve_model
from serd.inference.model import EmotionModel
from serd.inference.providers import CPU
from serd.inference.worker import (
    DropReason,
    InferenceWorker,
    Result,
    SegmentJob,
    WorkerOptions,
)
from serd.protocol.events import Event
from serd.pulse import Pulse
from serd.rows import RowPool, StreamInfo
from serd.runtime.assembler import Assembler
from serd.runtime.forecast import Forecast, Usage
from serd.runtime.ingest import IngestThread
from serd.runtime.judge import Judge
from serd.runtime.line import facts_of, stream_event
from serd.runtime.overload import Governor
from serd.runtime.parts import open_detector, segmenter_options, stream_policy
from serd.runtime.processors import processors
from serd.runtime.speech import SpeechPool, line_keys
from serd.runtime.stage import SpeechStage, SpeechThread
from serd.runtime.wait import ExpectedWait
from serd.segmenter import Segmenter
from serd.sources.base import Source
from serd.sources.intake import IntakeOptions, StreamTable
from serd.types import NATIVE_RATES_HZ
from serd.vad.detector import Detector

_MS = 1_000_000
_FOR_EVER_NS = 1 << 62
_MOST_WORKERS = 4


class Pipeline:
    """From sources to events: ingest, speech and inference threads and what they share.

    Parameters
    ----------
    config
        Sections ``streams``, ``vad``, ``segment`` and ``inference`` are used.
    sources
        Not opened yet.
    emit
        Takes every event, in order for each stream, from several threads one at a time; may
        block.
    clock
        Times and time-outs.
    on_finished
        Called once when every source is at its end.
    on_failure
        Called with what killed a thread.
    pulse
        Is told by every stage whether it moves.

    Attributes
    ----------
    model
        The one in use; `use_model` changes it.
    worker
        The inference stage.
    listener
        Is handed every segment after the inference stage, by the speech thread; must not wait.

    Raises
    ------
    ModelError, DeviceError
        The models cannot be used as configured.
    """

    def __init__(
        self,
        config: Config,
        sources: Sequence[Source],
        emit: Callable[[Event], None],
        clock: Clock,
        on_finished: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        pulse: Pulse | None = None,
    ) -> None:
        pulse = pulse or Pulse()
        inference, segment = config.inference, config.segment
        self._clock = clock
        self._emit = emit
        self.model = wanted(config, resolve_model(inference.model)).open()
        self._facts = facts_of(self.model)
        self._assembler = Assembler(emit)
        self._judge = Judge(self._assembler, clock, self._progressed)
        self._workers = inference.workers or _workers(self.model.provider)
        self._threads = inference.threads if self.model.provider == CPU else 1
        self.worker = InferenceWorker(
            self.one_a_worker(self.model),
            WorkerOptions(inference.queue_segments, inference.max_batch, inference.max_wait_ms),
            self._judged,
            self._judge.dropped,
            clock,
            pulse,
            self._facts,
        )
        self.listener: Callable[[SegmentJob], None] | None = None
        self._wait = ExpectedWait(
            lambda: self.worker.queued, inference.queue_segments, self._workers
        )
        # Of the lag allowed to live audio, what recordings played fast may use up: a quarter is
        # some three batches, enough to keep the model busy.
        self._patience_ns = config.streams.max_lag_ms * _MS // 4
        self._governor = Governor(config.streams.max_lag_ms)
        keys = line_keys()
        self._pools = {rate: self._row_pool(config, rate) for rate in NATIVE_RATES_HZ}
        self.detectors: list[Detector] = []
        speech_pools: list[SpeechPool] = []
        for rate, pool in self._pools.items():
            options = segmenter_options(config, rate)
            detector = open_detector(config, rate, pool.rows, self.model.provider)
            self.detectors.append(detector)
            speech_pools.append(
                SpeechPool(
                    pool,
                    detector,
                    Segmenter(pool.rows, options),
                    options.samples(segment.window_s),
                    self._assembler,
                    self._submit,
                    self._give_up,
                    lambda: self._facts,
                    clock,
                    keys,
                    self._pressed,
                    self._governor,
                )
            )
        pools = list(self._pools.values())
        self._stage = SpeechStage(
            speech_pools,
            pools,
            self._governor,
            self._lag_around_ns,
            clock,
            Forecast(
                processors(),
                self._workers * self._threads if self.model.provider == CPU else None,
            ),
            self._usage,
            self._withdraw,
        )
        self._speech = SpeechThread(self._stage, on_failure, pulse)
        self.table = StreamTable(
            self._pools,
            IntakeOptions(
                max_streams=config.streams.max_streams,
                idle_timeout_s=config.streams.idle_timeout_s,
                reorder_messages=config.streams.reorder_messages,
                policy=stream_policy(config),
                max_fill_ms=config.streams.max_fill_ms,
                # Beyond the hangover, so that a suppressed silence ends an utterance as the
                # silence itself would have, with time for the detector's memory to fade.
                silence_ms=segment.hangover_ms + segment.padding_ms + 500,
            ),
            clock,
            self._refused,
        )
        self._ingest = IngestThread(
            sources,
            self.table,
            pools,
            clock,
            self._speech.waker.wake,
            on_finished,
            on_failure,
            pulse,
        )

    @staticmethod
    def _row_pool(config: Config, rate_hz: int) -> RowPool:
        segment = config.segment
        needed_s = (
            segment.window_s
            + (segment.hangover_ms + segment.padding_ms + 2 * segment.min_speech_ms) / 1000
            + config.streams.backlog_s
        )
        return RowPool(rate_hz, config.streams.max_streams, int(needed_s * rate_hz))

    def one_a_worker(self, model: EmotionModel) -> list[EmotionModel]:
        """The model and its twins, for `use_model`; to be made before it is warmed up."""
        return [model, *(model.twin() for _ in range(self._workers - 1))]

    def use_model(self, models: Sequence[EmotionModel]) -> None:
        """Score with another model from the next batch on. Any thread.

        Parameters
        ----------
        models
            As `one_a_worker` gives them, warmed up.
        """
        model = models[0]
        facts = facts_of(model)
        self.worker.swap(models, facts)
        self.model, self._facts = model, facts

    def _submit(self, job: SegmentJob) -> None:
        self.worker.submit(job)
        listener = self.listener
        if listener is not None:
            listener(job)

    def _pressed(self) -> bool:
        return self._wait.exceeds(self._patience_ns if self._governor.governs else _FOR_EVER_NS)

    def _judged(self, results: list[Result]) -> None:
        self._wait.learn(results)
        self._judge.results(results)

    def _give_up(self, job: SegmentJob) -> None:
        self._judge.dropped(job, DropReason.OVERLOAD)

    def _lag_around_ns(self) -> int:
        # How old what a source still holds is, nobody knows; a quarter stands for an ingest that
        # is given a third more than it can take.
        return self._wait.ns + self._ingest.behind_ns // 4

    def _usage(self) -> Usage:
        # On the speech thread.
        worker = self.worker
        return Usage(
            self._ingest.processor_ns,
            time.thread_time_ns(),
            # Of a batch's threads it knows only the one that waits for the others.
            worker.compute_ns * self._threads,
            worker.submitted,
            worker.scored,
        )

    def _withdraw(self, keys: frozenset[int]) -> None:
        self.worker.withdraw(lambda job: job.context.place.key in keys)

    def _progressed(self) -> None:
        self._speech.waker.wake()

    def _refused(self, info: StreamInfo, at_sample: int, reason: str) -> None:
        self._emit(stream_event(info, "refused", reason, at_sample, self._clock.unix_ns()))

    @property
    def vad_name(self) -> str:
        """Name of the voice-activity detector in use."""
        return self.detectors[0].name

    def start(self) -> None:
        """Warm up the model and start the stages, last one first, so that each finds the next.

        Raises
        ------
        BindError
            A source cannot bind or connect.
        ModelError
            The model fails on its first input.
        """
        self.model.warm_up()
        self.worker.start()
        self._speech.start()
        try:
            self._ingest.start()
        except BaseException:
            # Also after Ctrl-C, when the ingest thread may be on its way up.
            self._ingest.stop(5.0)
            self._speech.stop()
            self.worker.stop()
            raise

    def stop(self, timeout_s: float) -> bool:
        """Drain: sources stop, rows flush, batches finish, events leave; then end the threads.

        Returns
        -------
        bool
            Whether everything was finished in time. What was not is told as gaps.
        """
        deadline = time.monotonic() + timeout_s

        def left() -> float:
            return max(0.1, deadline - time.monotonic())

        done = self._ingest.stop(left())
        done &= self._speech.wait_empty(left())
        done &= self.worker.drain(left())
        self._speech.stop()
        self.worker.stop()
        return done and self._assembler.pending == 0

    def batch_sizes(self) -> list[int]:
        """How many batches the model ran of each size, from 0 up."""
        return self.worker.batch_sizes()

    def counts(self) -> dict[str, int]:
        """Every counter of every stage, by name.

        ``vad.compute_ns`` and ``inference.compute_ns`` are the processor time that the two threads
        spent inside onnxruntime. With more than one operator thread (``threads`` of their sections)
        they leave out what the others did.
        """
        worker = {f"inference.{name}": count for name, count in self.worker.counts().items()}
        return {
            **self._ingest.counts(),
            **self._stage.counts(),
            **worker,
            "inference.compute_ns": self.worker.compute_ns,
            "assembler.pending": self._assembler.pending,
            "assembler.peak": self._assembler.peak,
        }


def wanted(config: Config, manifest: Path) -> Candidate:
    """A model, to be opened as the configuration has it."""
    inference = config.inference
    return Candidate(
        str(manifest),
        inference.device,
        inference.threads,
        _batch_sizes(inference.max_batch),
        inference.precision,
        config.segment.window_s,
    )


def _workers(provider: str) -> int:
    """Inference threads: what the processors, or the interpreter lock, are good for.

    On a GPU the audio of one batch is copied while the other computes.
    """
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0))) if provider == CPU else 2


def _batch_sizes(largest: int) -> tuple[int, ...]:
    """Powers of two up to the largest batch, and that one."""
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size < largest]
    return (*sizes, largest)
