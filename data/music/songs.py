"""The song collections that a config can name."""

from data.music.book import PARTS, Part, SongBook, SongSource, opening, split_by_opening
from data.music.chorales import Chorales
from data.music.essen import EssenSongs
from data.music.folder import FolderSongs
from data.music.pop909 import Pop909Songs
from data.simulate.melodies import GeneratedSongs

__all__ = [
    "PARTS",
    "Chorales",
    "EssenSongs",
    "FolderSongs",
    "GeneratedSongs",
    "Part",
    "Pop909Songs",
    "SongBook",
    "SongSource",
    "opening",
    "split_by_opening",
]
