"""Loaders on the official layouts, made up file by file."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.corpora import LABELS, REGISTRY, Utterance, get, load
from trainer.corpora.reading import check_sections, read_corpora
from trainer.corpora.settings import CorpusSettings
from trainer.errors import TrainerError
from trainer.labels import parse_labels

TREES: dict[str, list[tuple[str, str, str, str | None]]] = {
    # path below the corpus's folder, speaker, label, sex
    "ravdess": [
        ("Actor_17/03-01-06-02-01-01-17.wav", "17", "fearful", "male"),
        ("Audio_Speech_Actors_01-24/Actor_02/03-01-02-01-02-01-02.flac", "02", "calm", "female"),
        (
            "audio_speech_actors_01-24/audio_speech_actors_01-24/Actor_03/03-01-05-01-02-01-03.wav",
            "03",
            "angry",
            "male",
        ),
        ("03-01-08-01-01-02-04.wav", "04", "surprised", "female"),
    ],
    "cremad": [
        ("AudioWAV/1001_DFA_ANG_XX.wav", "1001", "angry", "male"),
        ("1002_IEO_HAP_HI.mp3", "1002", "happy", "female"),
        ("1003_TIE_NEU_XX.wav", "1003", "neutral", "female"),
        ("1001_IWW_DIS_LO.wav", "1001", "disgust", "male"),
        ("1001_MTI_FEA_MD.wav", "1001", "fearful", "male"),
        ("1040_ITH_SAD_X.wav", "1040", "sad", "male"),
    ],
    "tess": [
        ("OAF_back_angry.wav", "OAF", "angry", "female"),
        (
            "TESS Toronto emotional speech set data/YAF_pleasant_surprised/YAF_back_ps.wav",
            "YAF",
            "surprised",
            "female",
        ),
        ("OAF_neutral/OA_bite_neutral.wav", "OAF", "neutral", "female"),
        ("YAF_fear/YAF_yes_fear.opus", "YAF", "fearful", "female"),
    ],
    "savee": [
        ("AudioData/DC/sa01.wav", "DC", "sad", "male"),
        ("ALL/KL_su15.wav", "KL", "surprised", "male"),
        ("JK_n30.flac", "JK", "neutral", "male"),
    ],
    "emodb": [
        ("wav/03a01Wa.wav", "03", "angry", "male"),
        ("16b10Eb.flac", "16", "disgust", "female"),
        ("08a02Ac.wav", "08", "fearful", "female"),
        ("03a01La.wav", "03", "bored", "male"),
    ],
    "emovo": [
        ("f1/sor-f1-l1.wav", "f1", "surprised", "female"),
        ("EMOVO/m3/gio-m3-d2.wav", "m3", "happy", "male"),
    ],
    "nemo": [
        ("samples/WR0_surprised_64.wav", "WR0", "surprised", "male"),
        ("EB0_happiness_1.opus", "EB0", "happy", None),
    ],
}

SIDE_FILES = {
    "cremad": (
        "VideoDemographics.csv",
        "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n"
        "1002,21,Female,Caucasian,Not Hispanic\n",
    ),
    "nemo": (
        "data.tsv",
        "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
        'WR0_surprised_64.wav\tsurprised\tA "b.\ta b\t        WR0\tmale\t23\n'
        "XX0_anger_1.wav\tanger\tNot here.\tnot here\tXX0\tfemale\t30\n",
    ),
}


def _plant(root: Path, name: str) -> Path:
    folder = root / name
    for relative, *_ in TREES[name]:
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if name in SIDE_FILES:
        file, text = SIDE_FILES[name]
        (folder / file).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("name", sorted(TREES))
def test_reads_official_names(tmp_path: Path, name: str) -> None:
    folder = _plant(tmp_path, name)
    scan = load(name, tmp_path)
    found = {
        str(u.path.relative_to(folder)): (u.speaker, u.label, u.sex, u.corpus)
        for u in scan.utterances
    }
    assert found == {path: (speaker, label, sex, name) for path, speaker, label, sex in TREES[name]}
    assert not scan.ignored
    assert all(u.language == get(name).language for u in scan.utterances)


def test_every_corpus_is_covered() -> None:
    assert set(TREES) == set(REGISTRY)


def _one(tmp_path: Path, name: str, stem: str) -> Utterance:
    return next(u for u in load(name, tmp_path).utterances if u.path.stem == stem)


def test_intensity_and_statement(tmp_path: Path) -> None:
    for name in ("ravdess", "cremad", "nemo"):
        _plant(tmp_path, name)
    ravdess = _one(tmp_path, "ravdess", "03-01-06-02-01-01-17")
    assert (ravdess.intensity, ravdess.statement) == ("strong", "kids are talking by the door")
    cremad = _one(tmp_path, "cremad", "1002_IEO_HAP_HI")
    assert (cremad.intensity, cremad.statement) == ("high", "it's eleven o'clock")
    assert _one(tmp_path, "nemo", "WR0_surprised_64").statement == "a b"


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("ravdess", "03-02-06-02-01-01-17.wav", "song, not speech"),
        ("ravdess", "03-03-06-02-01-01-17.wav", "channel code 03"),
        ("ravdess", "02-01-06-02-01-01-17.wav", "without sound"),
        ("ravdess", "03-01-09-02-01-01-17.wav", "emotion code 09"),
        ("emodb", "03a01Xa.wav", "not of the form"),
        ("tess", "OAF_back_joy.wav", "unknown emotion joy"),
        ("savee", "elsewhere/a01.wav", "says the speaker"),
        ("cremad", "1001_DFA_XXX_XX.wav", "emotion code XXX"),
        ("nemo", "notes.wav", "not of the form"),
    ],
)
def test_leaves_out_with_a_reason(tmp_path: Path, name: str, file: str, reason: str) -> None:
    folder = _plant(tmp_path, name)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).touch()
    scan = load(name, tmp_path)
    assert [i.path for i in scan.ignored] == [folder / file]
    assert reason in scan.ignored[0].reason


def test_a_corpus_unpacked_twice_counts_once(tmp_path: Path) -> None:
    copies = {
        "ravdess": "audio_speech_actors_01-24/Actor_17/03-01-06-02-01-01-17.wav",
        "tess": "TESS Toronto emotional speech set data/OAF_angry/OAF_back_angry.wav",
        "savee": "ALL/DC_sa01.wav",
        "cremad": "AudioMP3/1001_DFA_ANG_XX.mp3",
    }
    for name, copy in copies.items():
        folder = _plant(tmp_path, name)
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).touch()
        scan = load(name, tmp_path)
        assert len(scan.utterances) == len(TREES[name])
        assert [i.reason for i in scan.ignored] == ["a second copy of a file already read"]
    assert scan.ignored[0].path.suffix == ".mp3"


def test_hidden_folders_are_not_read(tmp_path: Path) -> None:
    folder = _plant(tmp_path, "tess")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._OAF_back_angry.wav").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "OAF_bar_angry.wav").touch()
    scan = load("tess", tmp_path)
    assert len(scan.utterances) == len(TREES["tess"])
    assert not scan.ignored


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"cremad is not at .*github\.com.*ODbL.*AudioWAV"):
        load("cremad", tmp_path)
    (tmp_path / "tess").mkdir()
    with pytest.raises(TrainerError, match=f"{tmp_path / 'tess'} holds no audio file"):
        load("tess", tmp_path)
    with pytest.raises(TrainerError, match="No corpus is called 'iemocap'; there are cremad, "):
        get("iemocap")


def test_sexes_of_cremad_need_no_table(tmp_path: Path) -> None:
    for actor in range(1001, 1092):
        (tmp_path / f"{actor}_DFA_ANG_XX.wav").touch()
    sexes = Counter(u.sex for u in get("cremad").scan(tmp_path).utterances)
    assert sexes == {"male": 48, "female": 43}


def _sections(text: str) -> dict[str, CorpusSettings]:
    return {k: CorpusSettings.model_validate(v) for k, v in tomllib.loads(text).items()}


def test_song_is_chosen_in_the_recipe(tmp_path: Path) -> None:
    folder = _plant(tmp_path, "ravdess")
    (folder / "Audio_Song_Actors_01-24").mkdir()
    song = folder / "Audio_Song_Actors_01-24" / "03-02-06-02-01-01-17.wav"
    song.touch()
    for channels, songs in (('["speech"]', 0), ('["speech", "song"]', 1), ('["song"]', 1)):
        sections = _sections(f"[ravdess]\nchannels = {channels}\n")
        reading = read_corpora(sections, tmp_path, parse_labels(), complete=False)
        assert Counter(u.channel for u in reading.utterances)["song"] == songs
    song.unlink()
    with pytest.raises(TrainerError, match=r"corpora\.ravdess\.channels: .* holds no song"):
        read_corpora(sections, tmp_path, parse_labels(), complete=False)


def test_an_optional_corpus_may_be_absent_and_is_told(tmp_path: Path) -> None:
    _plant(tmp_path, "emodb")
    sections = _sections("[emodb]\n[cremad]\noptional = true\n")
    reading = read_corpora(sections, tmp_path, parse_labels(), complete=False)
    assert list(reading.absent) == ["cremad"]
    assert "WITHOUT corpus cremad" in reading.notes()[0]
    assert "bored 1" in reading.notes()[-1]
    assert reading.unlabelled == {"bored": 1}
    with pytest.raises(TrainerError, match="Not one of the corpora cremad"):
        read_corpora(_sections("[cremad]\noptional = true\n"), tmp_path, parse_labels())
    with pytest.raises(TrainerError, match="cremad is not at"):
        read_corpora(_sections("[cremad]\n"), tmp_path, parse_labels())


def test_a_section_may_name_its_folder_and_loader(tmp_path: Path) -> None:
    _plant(tmp_path / "elsewhere", "emodb")
    path = tmp_path / "elsewhere" / "emodb"
    sections = _sections(f'[berlin]\nloader = "emodb"\npath = "{path}"\n')
    reading = read_corpora(sections, tmp_path, parse_labels("nine"), complete=False)
    assert {u.corpus for u in reading.utterances} == {"berlin"}
    assert {u.label for u in reading.utterances} == {"angry", "disgust", "fearful", "bored"}
    assert reading.notes() == []


def test_sections_that_name_no_corpus() -> None:
    check_sections(_sections("[emodb]\n[mine]\nloader = 'folder'\n"))
    for text, fault in (
        ("", "names no corpus"),
        ("[iemocap]\n", r"corpora\.iemocap: there is no such corpus; there are ravdess"),
        ("[x]\nloader = 'y'\n", r"corpora\.x\.loader"),
    ):
        with pytest.raises(ValueError, match=fault):
            check_sections(_sections(text))


def test_inventories_agree_with_the_published_counts(tmp_path: Path) -> None:
    totals = {name: corpus.inventory(tmp_path, []).total for name, corpus in REGISTRY.items()}
    assert totals == {
        "ravdess": 1440,
        "cremad": 7442,
        "tess": 2800,
        "savee": 480,
        "emodb": 535,
        "emovo": 588,
        "nemo": 4481,
    }
    song = Utterance(Path("03-02-01-01-01-01-01.wav"), "ravdess", "01", "neutral", "en")
    sung = get("ravdess").inventory(tmp_path, [replace(song, channel="song")])
    assert sung.total == 1440 + 1012


def test_the_real_corpora(shared: Path) -> None:
    counts = {}
    for name in ("ravdess", "tess", "savee", "emodb", "emovo", "nemo"):
        scan = load(name, shared / "corpora")
        counts[name] = len(scan.utterances)
        assert {u.label for u in scan.utterances} <= set(LABELS)
        assert all(u.sex is not None for u in scan.utterances)
        assert not scan.ignored
    assert counts == {
        "ravdess": 1200,
        "tess": 2800,
        "savee": 360,
        "emodb": 408,
        "emovo": 392,
        "nemo": 3775,
    }
