"""MIDI in and out: the same notes by two readers and after a round trip, the choice of a track, damaged files."""

from __future__ import annotations

import io
import tarfile
import wave
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest

from data.errors import DataError
from data.music.files import melody_files, read_each, read_file
from data.music.key import Key
from data.music.melody import Melody
from data.music.midi_in import Midi, Reader, parse_midi
from data.music.midi_melody import melody_of, read_melody
from data.music.midi_out import signatures, write_midi
from data.music.songs import EssenSongs, GeneratedSongs
from data.music.synthesis import RATE, sound_font, synthesise, wav_bytes, write_wav
from data.music.voices import skyline, struck
from tests.data.music_files import ABC, KERN, damaged, melody, midi_bytes

READERS: tuple[Reader, ...] = ("symusic", "pretty_midi")


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    if request.param == "symusic":
        pytest.importorskip("symusic")
    chosen: Reader = request.param
    return chosen


def midi(*tracks: list[mido.Message | mido.MetaMessage], ticks: int = 480) -> bytes:
    file = mido.MidiFile(type=1, ticks_per_beat=ticks)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    kept = io.BytesIO()
    file.save(file=kept)
    return kept.getvalue()


def notes(*spans: tuple[int, int, int], name: str = "", channel: int = 0) -> list[mido.Message | mido.MetaMessage]:
    """A track of (start, end, pitch) in ticks of the file."""
    moments = [(end, "note_off", pitch) for _, end, pitch in spans] + [(at, "note_on", p) for at, _, p in spans]
    now, found = 0, [mido.MetaMessage("track_name", name=name)] if name else []
    for tick, kind, pitch in sorted(moments):
        found.append(mido.Message(kind, note=pitch, velocity=64, channel=channel, time=tick - now))
        now = tick
    return found


def same(song: Melody, other: Melody, shift: int = 0) -> bool:
    pairs = ((song.onset + shift, other.onset), (song.duration, other.duration), (song.pitch, other.pitch))
    return all(one.tolist() == two.tolist() for one, two in pairs)


def test_a_melody_survives_its_midi_file(tmp_path: Path, reader: Reader):
    for song in GeneratedSongs(songs=6, metre="3/4").load().songs:
        write_midi(tmp_path / "song.mid", song, song.position == 0)
        again = read_melody(tmp_path / "song.mid", reader=reader)
        assert same(song, again)
        assert again.bars.tolist() == song.bars.tolist()
        assert again.phrase is not None
        assert song.phrase is not None
        assert again.phrase.tolist() == song.phrase.tolist()
        assert song.key is not None
        assert again.key == Key(song.key.gong)
        assert (again.metre, again.about["tempo"]) == ((3, 4), "100")
        kept = read_melody(tmp_path / "song.mid", "skeleton", reader)
        assert kept.onset.tolist() == song.onset[song.position == 0].tolist()


def test_a_pickup_and_bars_of_other_lengths_keep_their_places(tmp_path: Path, reader: Reader):
    lengths = {"onset": [0, 12, 60, 132, 168, 180], "duration": [12, 48, 72, 36, 12, 24], "pitch": [60] * 6}
    arrays = {name: np.array(values) for name, values in lengths.items()}
    song = Melody("x", **arrays, bars=np.array([-36, 12, 60, 132, 168]), metre=(2, 4), key=Key.parse("F#:min"))
    write_midi(tmp_path / "song.mid", song, tempo=92.5)
    again = read_melody(tmp_path / "song.mid", reader=reader)
    assert same(song, again, shift=36)
    assert again.bars.tolist() == (song.bars + 36).tolist()
    assert (str(again.key), float(again.about["tempo"])) == ("F#:min", pytest.approx(92.5, abs=1e-3))
    assert signatures(song) == [(-36, (2, 4)), (60, (3, 4)), (132, (3, 8))]


def test_both_readers_agree_on_what_a_file_says():
    pytest.importorskip("symusic")
    meta = [
        mido.MetaMessage("set_tempo", tempo=600_000),
        mido.MetaMessage("time_signature", numerator=7, denominator=8),
        mido.MetaMessage("key_signature", key="Bbm"),
        mido.MetaMessage("marker", text="phrase 1", time=5),
        mido.MetaMessage("set_tempo", tempo=333_333, time=700),
        mido.MetaMessage("set_tempo", tempo=1_234_567, time=1111),
    ]
    steps = notes(*((at * 160, at * 160 + 155, 60 + at % 13) for at in range(40)), name="GrÃ¶Ã\x9fe")
    content = midi(meta, steps, notes((0, 960, 40), (480, 1440, 43), name="bass", channel=9))
    one, two = (parse_midi(content, "x", reader) for reader in READERS)
    assert one.tempo == pytest.approx(two.tempo) == pytest.approx(100)
    assert (one.ticks, one.metres, one.keys, one.markers) == (two.ticks, two.metres, two.keys, two.markers)
    assert one.metres == [(0, 7, 8)]
    assert one.keys == [(0, Key.parse("Bbm"))]
    for own, other in zip(one.tracks, two.tracks, strict=True):
        assert (own.name, own.program, own.drum, own.spans.tolist()) == (
            other.name, other.program, other.drum, other.spans.tolist(),
        )  # fmt: skip
    assert [track.name for track in one.tracks] == ["Größe", "bass"]


def test_triplets_odd_metres_and_a_missing_tempo(reader: Reader):
    content = midi([mido.MetaMessage("time_signature", numerator=5, denominator=8)],
                   notes(*((at * 160, at * 160 + 160, 60 + at) for at in range(12))))  # fmt: skip
    song = melody_of(parse_midi(content, "x", reader), "x")
    assert song.onset.tolist() == list(range(0, 96, 8))
    assert (song.metre, song.bars.tolist(), song.about["tempo"]) == ((5, 8), [0, 60], "120")


def test_a_short_overlap_is_cut_and_times_are_rounded_to_the_grid(reader: Reader):
    content = midi(notes((3, 500, 60), (477, 970, 62), (955, 1441, 64)))
    song = melody_of(parse_midi(content, "x", reader), "x")
    assert (song.onset.tolist(), song.duration.tolist()) == ([0, 24, 48], [24, 24, 24])


def test_a_chord_among_many_notes_leaves_the_higher_note(reader: Reader):
    spans = [(at * 480, at * 480 + 480, 60) for at in range(30)]
    song = melody_of(parse_midi(midi(notes(*spans, (480, 960, 67))), "x", reader), "x")
    assert song.pitch.tolist() == [60, 67] + [60] * 28
    assert song.about["overlaps"] == "1 notes sounded with another; the higher is kept"


def test_a_pitch_that_is_struck_again_while_it_sounds_is_two_notes(reader: Reader):
    pytest.importorskip("symusic")
    spans = ((0, 480, 60), (240, 960, 60), (960, 1000, 60), (960, 1200, 60), (2000, 2000, 61), (2000, 2100, 61))
    found = parse_midi(midi(notes(*spans)), "x", reader).tracks[0].spans
    assert found.tolist() == [[0, 240, 60], [240, 480, 60], [960, 1000, 60], [2000, 2100, 61]]
    again = struck(np.array(spans))
    assert again.tolist() == found.tolist()
    assert struck(again).tolist() == again.tolist()


def test_a_skyline_is_one_voice():
    spans = np.array([[0, 4, 60], [0, 1, 67], [2, 3, 64], [2, 5, 62]])
    assert skyline(spans).tolist() == [[0, 1, 67], [2, 3, 64]]


@pytest.mark.parametrize(
    ("tracks", "track", "fault"),
    [
        ([notes((0, 480, 60), (0, 480, 64), name="Piano")], None, r"track 'Piano' has chords \(1 of 2 notes"),
        ([notes((0, 1, 60), name="a"), notes((0, 1, 61), name="b", channel=1)], None,
         r"2 tracks could be the melody; choose a track: 0 'a' \(1 notes\), 1 'b' \(1 notes\)"),
        ([notes((0, 480, 36), name="kit", channel=9)], None, r"0 tracks could be the melody; choose a track: 0 'kit'"),
        ([notes((0, 480, 60), name="a")], "b", "no track 'b'; choose a track: 0 'a'"),
        ([notes((0, 480, 60), name="a")], "7", "no track 7; choose a track: 0 'a'"),
        ([notes()], None, "no note in it; leave it out"),
        ([], None, "leave it out|not readable as MIDI"),
    ],
)  # fmt: skip
def test_what_is_no_melody_is_refused_with_the_tracks_to_choose(
    tracks: list[list[mido.Message]], track: str | None, fault: str, reader: Reader, tmp_path: Path
):
    path = tmp_path / "x.mid"
    path.write_bytes(midi(*tracks))
    with pytest.raises(DataError, match=fault) as told:
        read_melody(path, track, reader)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


def test_a_track_is_taken_by_name_or_number_and_melody_by_itself(reader: Reader):
    content = midi(notes((0, 480, 60), name="MELODY"), notes((0, 480, 48), name="Piano", channel=1))
    read = parse_midi(content, "x", reader)
    assert [melody_of(read, "x", track).pitch[0] for track in (None, "piano", "1", 0)] == [60, 48, 48, 60]


def test_a_metre_of_countless_bars_and_a_file_without_end_are_refused(reader: Reader):
    tiny = midi([mido.MetaMessage("time_signature", numerator=1, denominator=32)], notes((0, 2_000_000, 60)))
    with pytest.raises(DataError, match="over 20000 bars of 1/32; correct the metre"):
        melody_of(parse_midi(tiny, "x", reader), "x")
    with pytest.raises(DataError, match="it lasts 9000001 ticks, over 5000000; it is damaged, or cut it"):
        parse_midi(midi(notes((9_000_000, 9_000_001, 60))), "x", reader)
    with pytest.raises(DataError, match="metre '3/128'"):
        melody_of(Midi(24, parse_midi(midi(notes((0, 9, 60))), "x", reader).tracks, 120.0, [(0, 3, 128)], [], []), "x")


def test_files_are_told_by_their_endings(tmp_path: Path):
    song = melody()
    write_midi(tmp_path / "a.MID", song)
    (tmp_path / "b.abc").write_text(ABC)
    (tmp_path / "c.krn").write_text(KERN)
    (tmp_path / "d.txt").write_text("no")
    assert [path.name for path in melody_files([tmp_path])] == ["a.MID", "b.abc", "c.krn"]
    assert [len(read_file(path)) for path in melody_files([tmp_path])] == [1, 2, 1]
    with pytest.raises(DataError, match="not a melody file"):
        read_file(tmp_path / "d.txt")
    with pytest.raises(DataError, match="no spine 'melody'; name its number"):
        read_file(tmp_path / "c.krn", "melody")
    with pytest.raises(DataError, match=r"gone.mid: No such file"):
        read_file(tmp_path / "gone.mid")
    with pytest.raises(DataError, match="name another place"):
        write_midi(tmp_path / "none" / "a.mid", song)


def _never_crashes(kind: str, content: bytes, path: Path) -> bool:
    """Whether damaged content was read; a refusal is one line, and anything else than DataError fails the test."""
    path.write_bytes(content)
    results = list(read_each(path, reader="symusic" if kind == "symusic" else "pretty_midi"))
    for fault in results:
        assert isinstance(fault, Melody) or "\n" not in str(fault)
    return any(isinstance(one, Melody) for one in results)


def _fuzz(kind: str, count: int, folder: Path) -> int:
    ending, content = {
        "symusic": (".mid", midi_bytes(melody())),
        "pretty_midi": (".mid", midi_bytes(melody())),
        "abc": (".abc", ABC.encode()),
        "kern": (".krn", KERN.encode()),
    }[kind]
    return sum(_never_crashes(kind, copy, folder / f"x{ending}") for copy in damaged(content, count))


KINDS = ("symusic", "pretty_midi", "abc", "kern")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_in_a_line(kind: str, tmp_path: Path):
    if kind == "symusic":
        pytest.importorskip("symusic")
    assert 0 < _fuzz(kind, 150, tmp_path) < 150


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_damaged_files_are_read_or_refused_in_a_line(kind: str, tmp_path: Path):
    if kind == "symusic":
        pytest.importorskip("symusic")
    assert 0 < _fuzz(kind, 10_000, tmp_path) < 10_000


def test_the_readers_agree_on_real_pop_songs(shared_data: Path):
    pytest.importorskip("symusic")
    with tarfile.open(shared_data / "music" / "pop909_main_midi.tar.xz") as packed:
        files = [entry for _, entry in zip(range(40), packed, strict=False) if entry.name.endswith(".mid")][:8]
        contents = [kept.read() for entry in files if (kept := packed.extractfile(entry)) is not None]
    assert len(contents) == 8
    for content in contents:
        one, two = (parse_midi(content, "x", reader) for reader in READERS)
        assert [track.spans.tolist() for track in one.tracks] == [track.spans.tolist() for track in two.tracks]
        assert same(melody_of(one, "x"), melody_of(two, "x"))


def test_real_folk_songs_survive_their_midi_file(shared_data: Path, tmp_path: Path):
    songs = EssenSongs("german", notes=str(shared_data / "music" / "essen_german.json.xz")).load().songs
    for song in songs[::40]:
        write_midi(tmp_path / "x.mid", song)
        again = read_melody(tmp_path / "x.mid")
        assert same(song, again, shift=-int(song.bars[song.bar_of[0]]))


def test_sound_has_the_pitch_and_the_length_of_the_notes():
    song = replace(melody(), onset=np.array([0, 48]), duration=np.array([48, 48]), pitch=np.array([69, 81]),
                   phrase=None, bars=np.array([0, 48]))  # fmt: skip
    sound = synthesise(song, tempo=60.0)
    assert len(sound) == int(4.5 * RATE) + 1
    assert np.abs(sound).max() <= 1
    for part, hertz in ((sound[: 2 * RATE], 440), (sound[2 * RATE : 4 * RATE], 880)):
        assert np.abs(np.fft.rfft(part)).argmax() / 2 == pytest.approx(hertz, abs=1)
    assert wav_bytes(sound)[:4] == b"RIFF"
    with pytest.raises(DataError, match="of sound, over 1800; cut it or raise the tempo"):
        synthesise(replace(song, onset=np.array([0, 900_000])), tempo=60.0)


def test_a_wav_file_is_written_by_sines_without_a_sound_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert write_wav(tmp_path / "x.wav", melody()) == "sine"
    assert (tmp_path / "x.wav").stat().st_size > RATE
    with pytest.raises(DataError, match="name another place"):
        write_wav(tmp_path / "none" / "x.wav", melody())


def test_fluidsynth_is_used_where_it_plays_and_never_leaves_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if sound_font() is None:
        pytest.skip("fluidsynth with a sound font is not installed")
    song = replace(melody(), about={"tempo": "960"})
    assert write_wav(tmp_path / "x.wav", song) == "fluidsynth"
    (tmp_path / "bad.sf2").write_bytes(b"no font")
    # Some builds then take a font of their own.
    monkeypatch.setenv("SOUNDFONT", str(tmp_path / "bad.sf2"))
    assert write_wav(tmp_path / "x.wav", song) in ("sine", "fluidsynth")
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2")).max() > 100
    with pytest.raises(DataError, match="name another place"):
        write_wav(tmp_path / "none" / "x.wav", song)
