"""Keys in order, in memory."""

from __future__ import annotations

import random

import pytest

from eventlog.storage import memory_keys
from eventlog.storage.memory_keys import Keys


@pytest.mark.parametrize("seed", range(20))
def test_they_do_what_a_sorted_set_does(seed, monkeypatch):
    monkeypatch.setattr(memory_keys, "_MOST", 4)
    story, keys, model = random.Random(seed), Keys(), set[bytes]()
    for _ in range(600):
        key = b"%03d" % story.randrange(200)
        if key in model and story.random() < 0.4 + 0.3 * (seed % 2):
            keys.remove(key)
            model.remove(key)
        elif key not in model:
            keys.add(key)
            model.add(key)
        start, end = b"%03d" % story.randrange(200), b"%03d" % story.randrange(210)
        count, reverse = story.randrange(12), story.random() < 0.5
        there = sorted((each for each in model if start <= each < end), reverse=reverse)
        assert keys.between(start, end, count, reverse=reverse) == there[:count]
    for key in sorted(model, key=lambda _: story.random()):
        keys.remove(key)
    assert keys.between(b"", b"~", 9, reverse=False) == []
    assert keys.between(b"", b"~", 9, reverse=True) == []


def test_none_moves_more_than_some_thousand_others():
    """Whether keys come in order, backwards, in the middle or at random, and while they go."""
    story = random.Random(1)
    order = [*range(40_000)]
    for numbers in (order, order[::-1], order[::2] + order[1::2], story.sample(order, len(order))):
        keys = Keys()
        for number in numbers:
            keys.add(b"%05d" % number)
        longest, lists = max(map(len, keys._lists)), len(keys._lists)
        assert longest <= 2048
        assert lists <= 2 * len(order) // 1024
        for number in numbers[: len(order) // 2]:
            keys.remove(b"%05d" % number)
        assert sum(map(len, keys._lists)) == len(order) // 2
