"""PulseAudio servers with a null sink each, and an ALSA configuration that shows them as devices.

A server of its own for each microphone, since stopping the server is what PortAudio takes for
an unplugged device: a stream whose sink alone is gone is moved to another one by PulseAudio.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.fakes import wait_until


class SoundServer:
    """One PulseAudio server; what is played into it is what its microphone records.

    Parameters
    ----------
    folder
        For its socket and state; the path must be short enough for a socket.
    name
        Name of the microphone.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.address = f"unix:{folder / name}.sock"
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def plug(self) -> None:
        """Start the server and wait until it answers."""
        state = self._folder / f"{self.name}.state"
        state.mkdir(exist_ok=True)
        environ = {
            **os.environ,
            "HOME": str(state),
            "XDG_RUNTIME_DIR": str(state),
            "PULSE_RUNTIME_PATH": str(state),
            "PULSE_STATE_PATH": str(state),
        }
        command = [
            "pulseaudio",
            "-n",
            "--daemonize=no",
            "--use-pid-file=no",
            "--exit-idle-time=-1",
            "--log-target=stderr",
            f"--load=module-native-protocol-unix socket={self._socket} auth-anonymous=1",
            "--load=module-null-sink sink_name=serd rate=16000 channels=1",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        wait_until(self._answers, f"PulseAudio to start; see {self._log}")

    def pull(self) -> None:
        """Kill the server: its microphone is gone without a good-bye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._socket.unlink(missing_ok=True)

    def play(self, recording: Path) -> subprocess.Popen[bytes]:
        """Play a recording into the null sink, in the background."""
        return subprocess.Popen(["paplay", f"--server={self.address}", str(recording)])

    @property
    def _socket(self) -> Path:
        return Path(self.address.removeprefix("unix:"))

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        command = ["pactl", f"--server={self.address}", "info"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def alsa_configuration(folder: Path, servers: list[SoundServer]) -> Path:
    """A file for ALSA_CONFIG_PATH in which every server is a device of its name."""
    entries = [
        f"pcm.{server.name} {{\n"
        f'  type pulse\n  server "{server.address}"\n  device "serd.monitor"\n'
        f'  hint {{ show on description "{server.name}" }}\n}}\n'
        for server in servers
    ]
    # Without a default device PortAudio's ALSA code stops at an assertion.
    entries.append(f'pcm.!default {{ type pulse server "{servers[0].address}" }}\n')
    path = folder / "asound.conf"
    path.write_text("".join(entries))
    return path
