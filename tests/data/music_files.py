"""Files for the music tests: a melody of every kind, and damaged copies of its file."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

from data.music.melody import Melody
from data.music.midi_out import midi_file
from data.simulate.melodies import GeneratedSongs

ABC = """X:1
T: A song
O: China, Shaanxi
R: Xiaodiao]
M: 2/4
L: 1/16
K: G
d4A2c2 | d4d4- | d3cd2g2 | c2A2G4
(3A2c2d2g4 | d4>c4 | c3AG2^F2 | D8
z2G2^F2G2 | G3Ac2d2 | d4c2d2 | G4D4

X:2
M: 6/8
K: Bb
B3 cde | f3-f2 z | d>ef g/g/ab | B6
"""
KERN = """!!!OTL: A song
**kern
*M2/4
*k[f#]
*G:
=1-
{4dd
8a
8cc
=2
[4dd
4dd]
=3
8.dd
16cc
8ddL
8gg}
=4
{8%3r
12cc
12a
12g
=5
4.g#
8r}
==
*-
"""


def melody(number: int = 0) -> Melody:
    return GeneratedSongs(songs=number + 1).load().songs[number]


def midi_bytes(song: Melody) -> bytes:
    kept = io.BytesIO()
    midi_file(song, song.position == 0).save(file=kept)
    return kept.getvalue()


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Copies with bytes changed, cut out, doubled or cut off."""
    draw = random.Random(seed)
    for _ in range(count):
        copy = bytearray(content)
        for _ in range(draw.randrange(1, 9)):
            at = draw.randrange(max(1, min(len(copy), draw.choice((64, len(copy) or 1)))))
            how = draw.random()
            if how < 0.6 and copy:
                copy[at] = draw.choice(
                    (0, 0x7F, 0x80, 0xFF, draw.randrange(256), ord(draw.choice("0123456789/|[]()-")))
                )
            elif how < 0.7:
                del copy[at : at + draw.randrange(1, 12)]
            elif how < 0.8:
                copy[at:at] = copy[at : at + draw.randrange(1, 12)]
            elif how < 0.88:
                del copy[draw.randrange(len(copy) + 1) :]
        yield bytes(copy)
