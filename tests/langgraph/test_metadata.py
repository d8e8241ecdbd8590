"""A checkpoint's metadata is what LangGraph's own rule makes of it."""

from __future__ import annotations

from collections import ChainMap

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import get_checkpoint_metadata

from savers.langgraph.metadata import described

KEYS = st.sampled_from(
    ["source", "run_id", "thread_id", "checkpoint_id", "checkpoint_ns", "langgraph_step", "__x", "y"]
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text("a\0", max_size=3))
MAPS = st.dictionaries(KEYS, st.one_of(VALUES, st.lists(VALUES, max_size=1)), max_size=5)
SAID = st.one_of(st.none(), MAPS, st.lists(MAPS, min_size=1, max_size=3).map(lambda maps: ChainMap(*maps)))


@given(SAID, SAID, MAPS)
@settings(max_examples=300, deadline=None)
def test_it_says_what_langgraphs_own_rule_says_in_the_same_order(said, configurable, metadata):
    config = {"metadata": said, "configurable": configurable}
    assert [*described(config, metadata).items()] == [*get_checkpoint_metadata(config, metadata).items()]
    assert [*described({}, metadata).items()] == [*get_checkpoint_metadata({}, metadata).items()]
