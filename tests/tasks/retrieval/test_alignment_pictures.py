"""Laws of the alignment pictures: the numbers in them are the argmax of the cosines, whatever asks."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.retrieval.alignment_pictures import cosines, pair_picture
from tasks.retrieval.answer_page import Answer, compose
from tasks.retrieval.seen_items import Seen
from tests.tasks.retrieval.test_index import WIDTH, units
from tests.tasks.retrieval.toy import square


def picture(side: int = 2) -> Seen:
    rng = np.random.default_rng(0)
    grid = np.array([(column, row) for row in range(side) for column in range(side)], np.float32)
    x = units(rng, side * side)
    labels = [str(k) for k in range(side * side)]
    return Seen("square.png", "image", square("red", "upper left", 1), x, units(rng), labels, grid, {"licence": "MIT"})


def words(text: str, near: Seen) -> Seen:
    """A text whose k-th word lies on the k-th patch."""
    labels = text.split()
    x = np.concatenate([near.x, units(np.random.default_rng(1), 99)])[: len(labels)]
    return Seen("caption", "text", text, x, units(np.random.default_rng(2)), labels)


def test_each_patch_carries_the_number_of_its_nearest_word():
    image = picture()
    text = words("one two three four", image)
    assert cosines(image, text).argmax(axis=1).tolist() == [0, 1, 2, 3]
    drawn = pair_picture("answer-1", text, image, "1. square")
    assert "“one” 1 patch; “two” 1 patch" in drawn.alt
    assert drawn.n == "4 patches, 4 word pieces"
    assert "nearest word of each patch" in str(drawn.image)
    same = pair_picture("answer-1", image, text, "1. square")
    assert same.image == drawn.image, "whoever asks, patches take words"


def test_many_words_are_cut_to_the_best_and_say_so():
    image = picture(3)
    drawn = pair_picture("answer-1", image, words(" ".join(f"w{k}" for k in range(40)), image), "long")
    assert "The 24 best of 40 words are listed." in drawn.caption
    assert ">1 w0<" in str(drawn.image)


def test_any_two_modalities_have_a_table_of_cosines():
    image = picture()
    text = words("do re mi", image)
    tune = Seen("tune.mid", "melody", None, text.x[::-1].copy(), text.vector, ["C4", "D4", "E4"])
    drawn = pair_picture("answer-1", text, tune, "tune")
    assert "do: E4; re: D4; mi: C4" in drawn.alt
    assert drawn.n == "3 tokens ask 3 tokens"


@pytest.mark.parametrize("right", [None, True, False])
def test_a_page_says_what_is_right_and_whose_the_items_are(right: bool | None):
    image = picture()
    text = words("one two three four", image)
    answers = [Answer(1, "square.png", 0.5, image.about, image, right), Answer(2, "gone.png", 0.1, {}, None, right)]
    page = compose(text, answers, "tokens", {"gallery": "test"}, "retrieval", "It is found.").html()
    assert "Drawn: 1 answer of 2." in page
    assert "Items shown: MIT." in page
    assert ("not its partner" in page) == (right is False)
    assert image.x.shape[1] == WIDTH


def test_a_page_shows_pictures_and_plays_melodies():
    image, notes = picture(), np.array([[60, 0, 1], [64, 1, 1]], np.float32)
    tune = Seen("tune.mid", "melody", notes, image.x[:2], image.vector, ["C4", "E4"])
    page = compose(tune, [Answer(1, image.id, 0.5, {}, image)], "tokens", {}, "retrieval", "a lead").html()
    assert page.count('<audio controls preload="none" src="data:audio/wav;base64,') == 1
    assert page.count('<img src="data:image/png;base64,') == 1
    assert "media-src data:" in page, "the page itself allows the sound and nothing from elsewhere"
