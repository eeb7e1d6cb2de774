from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.config.loading import apply_overrides, check, defaults_text, load
from serd.config.schema import (
    SOURCE_MODELS,
    Config,
    FileSourceConfig,
    MicrophoneSourceConfig,
    Section,
    ZmqSourceConfig,
)
from serd.errors import ConfigError, InputError
from serd.types import Role


def uncommented() -> str:
    """defaults.toml with its examples switched on."""
    return re.sub(r"(?m)^# (?=\[\[|[a-z_]+ = )", "", defaults_text())


def problems_of(text: str) -> list[str]:
    _, problems = check(tomllib.loads(text))
    return [str(problem) for problem in problems]


class TestDefaults:
    def test_without_a_file_everything_has_a_value(self) -> None:
        config = load()
        assert config == Config()
        (source,) = config.sources
        assert isinstance(source, ZmqSourceConfig)
        assert (source.name, source.socket, source.bind, source.connect) == (
            "zmq-0",
            "PULL",
            ("tcp://127.0.0.1:5550",),
            (),
        )
        assert config.streams.refuse_roles == (Role.AGENT, Role.MIXED)

    def test_the_documented_defaults_are_the_defaults(self) -> None:
        config, problems = check(tomllib.loads(defaults_text()))
        assert not problems
        assert config == Config()

    def test_every_key_is_documented_and_no_other(self) -> None:
        documented = tomllib.loads(uncommented())
        for name, info in Config.model_fields.items():
            if name == "sources":
                continue
            section = info.default
            assert isinstance(section, Section)
            assert set(documented.pop(name)) == set(type(section).model_fields)
        sources = documented.pop("sources")
        assert not documented
        assert {source["type"] for source in sources} == set(SOURCE_MODELS)
        for source in sources:
            assert set(source) == set(SOURCE_MODELS[source["type"]].model_fields)

    def test_the_examples_show_defaults(self) -> None:
        for source in tomllib.loads(uncommented())["sources"]:
            model = SOURCE_MODELS[source["type"]]
            for key, field in model.model_fields.items():
                if field.is_required() or field.default is None or key in {"name", "bind"}:
                    continue
                shown = source[key]
                assert field.default == (tuple(shown) if isinstance(shown, list) else shown), key

    def test_every_line_says_what_a_key_means(self) -> None:
        for line in defaults_text().splitlines():
            if re.match(r"(# )?[a-z_]+ = ", line) and 'type = "' not in line:
                named_above = line.startswith(("# name", "# roles = []", "# consent = false"))
                assert named_above or line.count("#") == (2 if line.startswith("#") else 1), line


class TestSources:
    def test_all_three_kinds(self) -> None:
        config, problems = check(
            tomllib.loads("""
            [[sources]]
            type = "zmq"
            socket = "SUB"
            connect = ["tcp://127.0.0.1:6550", "ipc:///run/tap"]
            subscribe = "call-"
            roles = ["customer", "agent"]
            [[sources]]
            type = "microphone"
            device = 2
            channels = [1, 2]
            [[sources]]
            type = "file"
            path = "talk.wav"
            """)
        )
        assert not problems
        zmq, microphone, file = config.sources
        assert isinstance(zmq, ZmqSourceConfig)
        assert isinstance(microphone, MicrophoneSourceConfig)
        assert isinstance(file, FileSourceConfig)
        assert zmq.connect == ("tcp://127.0.0.1:6550", "ipc:///run/tap")
        assert zmq.subscribe == ("call-",)
        assert zmq.roles == (Role.CUSTOMER, Role.AGENT)
        assert (microphone.device, microphone.channels) == (2, (1, 2))
        assert file.realtime
        assert [source.name for source in config.sources] == ["zmq-0", "microphone-1", "file-2"]

    @pytest.mark.parametrize(
        "endpoint",
        ["tcp://*:5550", "tcp://0.0.0.0:*", "tcp://[::1]:5550", "ipc:///run/serd", "inproc://a"],
    )
    def test_endpoints_that_can_be_bound(self, endpoint: str) -> None:
        plain = "[security]\nallow_plaintext = true"
        assert problems_of(f"[[sources]]\ntype = 'zmq'\nbind = '{endpoint}'\n{plain}") == []

    @pytest.mark.parametrize(
        "endpoint",
        ["localhost:5550", "tcp://localhost", "tcp://a:70000", "udp://a:1", "tcp://:5", ""],
    )
    def test_endpoints_that_cannot(self, endpoint: str) -> None:
        (problem,) = problems_of(f"[[sources]]\ntype = 'zmq'\nbind = '{endpoint}'")
        assert problem.startswith("sources.0.bind")

    def test_a_wildcard_cannot_be_connected_to(self) -> None:
        (problem,) = problems_of("[[sources]]\ntype = 'zmq'\nconnect = 'tcp://*:5550'")
        assert problem.startswith("sources.0.connect.0: cannot hold *")


class TestMessages:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[segmnt]", "segmnt: unknown key; did you mean segment?"),
            ("[segment]\nwindw_s = 3", "segment.windw_s: unknown key; did you mean window_s?"),
            (
                "[segment]\nhangover_s = 0.5",
                "segment.hangover_s: unknown key; did you mean hangover_ms = 500 (milliseconds)?",
            ),
            (
                "[segment]\nwindow_ms = 3000",
                "segment.window_ms: unknown key; did you mean window_s = 3 (seconds)?",
            ),
            (
                "[segment]\nhop = 1",
                "segment.hop: unknown key; did you mean hop_s (seconds)?",
            ),
            (
                "[segment]\nonset_threshold = 0.4",
                "segment.onset_threshold: unknown key; did you mean vad.onset_threshold?",
            ),
            (
                "[segment]\nhangover_ms = 0.5",
                "segment.hangover_ms: must be a whole number, not 0.5;"
                " it is in milliseconds: 0.5 s is 500",
            ),
            (
                "[segment]\nwindow_s = 3000",
                "segment.window_s: must be at most 30, not 3000; it is in seconds: 3000 ms is 3",
            ),
            ("[vad]\nonset_threshold = '0.5'", "vad.onset_threshold: must be a number, not '0.5'"),
            (
                "[vad]\nonset_threshold = nan",
                "vad.onset_threshold: must be a finite number, not nan",
            ),
            ("[vad]\nthreads = true", "vad.threads: must be a whole number, not True"),
            (
                "[inference]\ndevice = 'gpu'",
                'inference.device: must be one of "auto", "cpu", "cuda", not \'gpu\'',
            ),
            (
                "[streams]\nrefuse_roles = ['agents']",
                'streams.refuse_roles.0: must be one of "customer", "agent", "self", "mixed",'
                ' "unknown", not \'agents\'; did you mean "agent"?',
            ),
            ("segment = 3", "segment: must be a table, not 3"),
            ("[[sources]]\ntype = 'file'", "sources.0.path: is required"),
            (
                "[[sources]]\ntype = 'mic'",
                'sources.0.type: must be one of "zmq", "microphone", "file", not \'mic\'',
            ),
            (
                "[[sources]]\nbind = 'tcp://*:1'",
                'sources.0.type: must be one of "zmq", "microphone", "file"',
            ),
            ("sources = 'x'", "sources: must be a list, not 'x'"),
            (
                "[[sources]]\ntype = 'zmq'\nbnd = 'tcp://*:1'\nconnect = 'tcp://127.0.0.1:1'",
                "sources.0.bnd: unknown key; did you mean bind?",
            ),
            ("[publish]\nsend_hwm = 0", "publish.send_hwm: must be at least 1, not 0"),
            ("[publish]\nbind = []", "publish.bind: must hold at least 1, not 0"),
        ],
    )
    def test_one_mistake_gives_one_sentence(self, text: str, expected: str) -> None:
        assert problems_of(text) == [expected]

    def test_everything_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "serd.toml"
        path.write_text("""
            hangover_ms = 3
            [vad]
            onset_treshold = 0.5
            offset_threshold = 0.9
            [segment]
            window_s = 1.0
            hop_s = 2.0
            hangover_ms = "long"
            [[sources]]
            type = "zmq"
            [[sources]]
            type = "file"
            """)
        with pytest.raises(ConfigError) as caught:
            load(path, ["inference.threads=0", "nonsense"])
        first, *lines = caught.value.message.splitlines()
        assert first == f"{path}: 9 problems"
        assert sorted(line.split(":")[0].strip() for line in lines) == [
            "--set nonsense",
            "hangover_ms",
            "inference.threads",
            "segment.hangover_ms",
            "segment.hop_s",
            "sources.0",
            "sources.1.path",
            "vad.offset_threshold",
            "vad.onset_treshold",
        ]

    def test_a_conflict_with_a_refused_key_is_not_told(self) -> None:
        assert problems_of("[segment]\nwindow_s = 'long'\nhop_s = 20") == [
            "segment.window_s: must be a number, not 'long'"
        ]


class TestConflicts:
    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("[vad]\noffset_threshold = 0.6", "vad.offset_threshold"),
            ("[segment]\nhop_s = 3.5", "segment.hop_s"),
            ("[segment]\npadding_ms = 501", "segment.padding_ms"),
            ("[segment]\nmax_utterance_s = 2", "segment.max_utterance_s"),
            (
                "[segment]\nmin_speech_ms = 2000\nmax_utterance_s = 1.5\nwindow_s = 1",
                "segment.min_speech_ms",
            ),
            ("[inference]\nqueue_segments = 31", "inference.queue_segments"),
            ("[streams]\nmax_lag_ms = 500\nbacklog_s = 0.5", "streams.max_lag_ms"),
            ("[[sources]]\ntype = 'zmq'", "sources.0"),
            (
                "[[sources]]\ntype = 'zmq'\nsocket = 'SUB'\nconnect = 'ipc:///a'\nsubscribe = []",
                "sources.0.subscribe",
            ),
            (
                "[[sources]]\ntype = 'zmq'\nconnect = 'tcp://127.0.0.1:1'\nsubscribe = ['a']",
                "sources.0.subscribe",
            ),
            (
                "[[sources]]\ntype = 'file'\npath = 'a'\nname = 'x'\n"
                "[[sources]]\ntype = 'file'\npath = 'b'\nname = 'x'",
                "sources.1.name",
            ),
            (
                "[[sources]]\ntype = 'file'\npath = 'a'\nstream = 'x'\n"
                "[[sources]]\ntype = 'file'\npath = 'b'\nstream = 'x'",
                "sources.1.stream",
            ),
            ("[publish]\nbind = 'tcp://127.0.0.1:5550'", "publish.bind"),
            (
                "[publish]\nbind = 'tcp://*:5550'\n[security]\nallow_plaintext = true",
                "publish.bind",
            ),
            ("[publish]\nreplay_bind = 'tcp://127.0.0.1:5556'", "publish.replay_bind"),
            ("[publish]\nbind = 'ipc:///a'\nreplay_bind = 'ipc:///a'", "publish.replay_bind"),
        ],
    )
    def test_is_told_once(self, text: str, path: str) -> None:
        (problem,) = problems_of(text)
        assert problem.split(":")[0] == path

    def test_ports_that_the_system_chooses_never_collide(self) -> None:
        assert (
            problems_of("[publish]\nbind = 'tcp://127.0.0.1:*'\nreplay_bind = 'tcp://127.0.0.1:*'")
            == []
        )


class TestOverrides:
    def test_values_are_toml_and_bare_words_are_text(self) -> None:
        config = load(
            None,
            [
                "segment.hop_s=0.5",
                "inference.device=cpu",
                'inference.model="my model.json"',
                "sources.0.bind=tcp://127.0.0.1:*",
                "publish.bind=['tcp://127.0.0.1:*', 'ipc:///run/x']",
                "streams.refuse_roles=[]",
            ],
        )
        assert config.segment.hop_s == 0.5
        assert config.inference.device == "cpu"
        assert config.inference.model == "my model.json"
        (source,) = config.sources
        assert isinstance(source, ZmqSourceConfig)
        assert source.bind == ("tcp://127.0.0.1:*",)
        assert config.publish.bind == ("tcp://127.0.0.1:*", "ipc:///run/x")
        assert config.streams.refuse_roles == ()

    def test_sources_can_be_appended(self) -> None:
        config = load(None, ["sources.1.type=file", "sources.1.path=a.wav"])
        assert [source.type for source in config.sources] == ["zmq", "file"]

    def test_they_win_over_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "serd.toml"
        path.write_text("[segment]\nhop_s = 0.25\nwindow_s = 2.0\n")
        segment = load(path, ["segment.hop_s=0.5"]).segment
        assert (segment.hop_s, segment.window_s) == (0.5, 2.0)

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("segment.hop_s", "expected KEY=VALUE"),
            ("=3", "is not a path"),
            ("segment..hop_s=3", "is not a path"),
            ("segment.hop_s=", "is not a TOML value"),
            ("publish.bind=['tcp://", "is not a TOML value"),
            ("vad.threads=1\nvad.onset_threshold=0.4", "is not a TOML value"),
            ("sources.2.bind=x", "must be a position"),
            ("sources.first.bind=x", "must be a position"),
        ],
    )
    def test_mistakes_are_told(self, override: str, words: str) -> None:
        (problem,) = apply_overrides({"publish": {"bind": []}}, [override])
        assert problem.path.startswith("--set")
        assert words in problem.text

    def test_bytes_that_are_not_text_are_shown(self) -> None:
        with pytest.raises(ConfigError, match=r"\\udcff: unknown key"):
            load(None, ["\udcff=1"])

    def test_a_value_is_no_table(self) -> None:
        (problem,) = apply_overrides({"segment": {"hop_s": 1}}, ["segment.hop_s.x=1"])
        assert problem.text == "segment.hop_s is a value, not a table"


class TestFiles:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none\.toml: No such file") as caught:
            load(tmp_path / "none.toml")
        assert caught.value.exit_code == 66

    @pytest.mark.parametrize("content", [b"[segment", b"a = \xff"])
    def test_what_is_not_toml_is_told(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "broken.toml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not valid TOML") as caught:
            load(path)
        assert caught.value.exit_code == 78


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
KEYS = TEXT.filter(bool)


def is_known(path: list[str]) -> bool:
    if len(path) == 1 or path[0] == "sources":
        return path[0] in Config.model_fields
    section = Config.model_fields.get(path[0])
    return section is None or path[1] in getattr(type(section.default), "model_fields", ())


class TestAnyInput:
    @given(
        st.lists(KEYS, min_size=1, max_size=4),
        st.sampled_from(sorted(set(Config.model_fields) - {"sources"})),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
            lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
            max_leaves=5,
        ),
    )
    def test_an_unknown_key_gives_one_problem(
        self, path: list[str], section: str, value: object
    ) -> None:
        for full in (path, [section, *path]):
            if is_known(full):
                continue
            table: dict[str, object] = {}
            inner = table
            for part in full[:-1]:
                child: dict[str, object] = {}
                inner[part] = child
                inner = child
            inner[full[-1]] = value
            _, (problem,) = check(table)
            assert "unknown key" in problem.text

    @given(st.lists(st.text() | st.tuples(st.text(), st.text()).map("=".join), max_size=5))
    def test_overrides_fail_with_configuration_errors_alone(self, overrides: list[str]) -> None:
        with contextlib.suppress(ConfigError):
            load(None, overrides)

    @given(
        st.dictionaries(
            st.sampled_from([*Config.model_fields, "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["type", "bind", "device", "path", "hop_s", "window_s", "roles", "name"]
                        )
                        | st.text(max_size=3),
                        inner | st.sampled_from(["zmq", "file", "microphone"]),
                        max_size=4,
                    )
                ),
                max_leaves=20,
            ),
        )
    )
    def test_any_table_is_taken_or_refused(self, table: dict[str, object]) -> None:
        config, problems = check(table)
        assert isinstance(config, Config)
        assert all(problem.path and problem.text for problem in problems)
