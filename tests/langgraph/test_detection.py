"""How a changed list is told from one that rests: by sound comparison, or by the identity of its items.

Both have to answer as upstream's saver does, however lists change from one checkpoint to the next. They differ in what
was changed in place alone.
"""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from typing_extensions import TypedDict

from eventlog import EventLog, InvalidInputError, TooLargeError, UnserializableError
from savers.langgraph import EventLogSaver
from tests.langgraph.byhand import Story, config
from tests.langgraph.upstream import InMemorySaver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOUND, IDENTITY = "sound", "identity"
# Which savers share the log; each put goes to the next one.
TEAMS = {"sound": [SOUND], "identity": [IDENTITY], "both": [SOUND, IDENTITY], "two": [IDENTITY, IDENTITY]}


@pytest.fixture
def log() -> Iterator[EventLog]:
    opened = EventLog.open("memory:")
    yield opened
    assert list(opened.verify()) == []
    opened.close()


@pytest.fixture(params=TEAMS)
def story(log: EventLog, request: pytest.FixtureRequest) -> Story:
    return Story(*(EventLogSaver(log, detection=kind) for kind in TEAMS[request.param]))


def message(n: int) -> Any:
    kind = AIMessage if n % 2 else HumanMessage
    return kind(f"text {n} " * (1 + 40 * (n % 3)), id=f"m{n}")


class Items(list):
    """No list as far as types go."""


GONE, EMPTY = object(), ...
A, B, C, D = (message(n) for n in range(4))
SHAPES: dict[str, list[Any]] = {
    "grows": [[A], [A, B], [A, B, C, D]],
    "rests": [[A, B], [A, B], [A, B, C], [A, B, C]],
    "shrinks": [[A, B, C], [A, B], [A], [A, C]],
    "loses its first item": [[A, B, C], [B, C], [B, C, D]],
    "has its last item replaced": [[A, B], [A, C], [A, C, D]],
    "has an old item replaced": [[A, B, C], [A, D, C], [A, D, C, B]],
    "has an item replaced by an equal one": [[A, B], [copy.deepcopy(A), B], [A, B], [A, B, C]],
    "is all equal and all other objects": [[A, B], copy.deepcopy([A, B]), copy.deepcopy([A, B, C]), [A, B, C, D]],
    "is put in another order": [[A, B, C], [C, B, A], [A, B, C]],
    "grows at its beginning": [[B], [A, B], [C, A, B]],
    "has the same item twice": [[A], [A, A], [A, A, A], [A]],
    "is emptied": [[A, B], [], [C]],
    "begins empty": [[], [], [A], [A, B]],
    "becomes text and comes back": [[A, B], "text", [A, B], "text " * 100, [A, B, C]],
    "becomes nothing and comes back": [[A, B], None, [A, B, C]],
    "becomes a tuple and comes back": [[A, B], (A, B), [A, B], (A, B), [A, B, C]],
    "becomes a dict and comes back": [[A], {"k": [A]}, [A], {"k": [A, B]}, [A, B]],
    "is deleted and comes back": [[A, B], GONE, [A, B], GONE, [A, B, C]],
    "has no value for a while": [[A, B], EMPTY, [A, B], EMPTY, [A, B, C]],
    "has numbers that are called equal": [[1, 0], [True, 0], [1.0, 0], [1, False], [1, 0, 0.0], [1, 0, -0.0]],
    "has lists": [[[A]], [[A], [B]], [[A, B], [B]], [[A, B], [B], []]],
    "is of a subclass for a while": [[A], Items([A, B]), [A, B, C], Items([A, B, C]), [A, B, C]],
}


class TestShapes:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_list_that(self, story: Story, shape: str):
        for n, items in enumerate(SHAPES[shape] * 2):
            values = {"other": n} if items is GONE else {"other": n, "items": items}
            story.put(values, by=n % len(story.ours))
        story.check_all()

    @pytest.mark.parametrize("shape", SHAPES)
    def test_each_step_forked_from_the_first(self, story: Story, shape: str):
        first = story.put({"items": [A, B], "other": 0})
        for n, items in enumerate(SHAPES[shape]):
            values = {"other": n} if items is GONE else {"other": n, "items": items}
            story.put(values, under=first, by=n % len(story.ours))
        story.check_all()

    def test_one_list_that_a_graph_goes_on_to_extend(self, story: Story):
        """The list is the graph's: what it is like later must not look like what was put."""
        items: list[Any] = [A]
        for n in range(2, 6):
            story.put({"items": items}, by=n % len(story.ours))
            items.append(message(n))
        story.put({"items": items})
        items.clear()
        story.put({"items": items})
        story.check_all()

    def test_a_list_whose_version_rests_is_not_looked_at(self, story: Story):
        story.put({"items": [A], "other": 1})
        story.put({"items": [A, B], "other": 2}, changed={"other"})
        story.put({"items": [A, B, C], "other": 3})
        story.check_all()


class TestHistories:
    def test_forks_and_the_branches_go_on_in_turn(self, story: Story):
        root = story.put({"items": [A]})
        heads = {name: (root, [A]) for name in "xyz"}
        for n in range(4, 16):
            name = "xyz"[n % 3]
            under, items = heads[name]
            items = [*items, message(n)] if n % 5 else items[:-1]
            heads[name] = (story.put({"items": items}, under=under, by=n % len(story.ours)), items)
        story.check_all()

    def test_a_checkpoint_is_put_again_with_another_list(self, story: Story):
        first = story.put({"items": [A]})
        second = story.put({"items": [A, B]})
        story.put({"items": [A, B, C]}, under=first, again=second)
        story.put({"items": [A, B, C, D]}, under=second)
        story.put({"items": [A]}, under=None, again=first)
        story.put({"items": [A, D]}, under=first, by=len(story.ours) - 1)
        story.check_all()

    def test_a_list_that_grows_after_what_reads_back_as_a_list(self, log: EventLog):
        """A tuple is stored as the same bytes, so a saver that finds it there sees no change to a list of its items."""
        story = Story(*(EventLogSaver(log, detection=kind) for kind in (SOUND, IDENTITY)))
        story.put({"items": (A, B)})
        story.put({"items": [A, B]}, by=1)
        story.put({"items": [A, B, C]}, by=1)
        story.check_all()

    @pytest.mark.parametrize("under", [None, "nowhere"])
    def test_under_no_parent(self, story: Story, under: str | None):
        story.put({"items": [A, B]})
        story.put({"items": [A, B, C]}, under=under)
        story.put({"items": [A, B, C, D]})
        story.put({"items": [D]}, under=under, by=len(story.ours) - 1)
        story.put({"items": [D, A]})
        story.check_all()

    def test_the_thread_is_deleted_and_begun_again(self, story: Story):
        for by in range(len(story.ours)):
            story.put({"items": [A, B]})
            story.delete(by)
            story.put({"items": [A, B, C]}, under=None, by=by)
            story.put({"items": [A, B, C, D]})
            story.delete(by)
            story.put({"items": [A]}, by=by)
        story.check_all()

    @pytest.mark.parametrize(
        ("options", "item", "error"),
        [({}, lambda: None, UnserializableError), ({"max_checkpoint_bytes": 20_000}, "x" * 20_000, TooLargeError)],
    )
    @pytest.mark.parametrize("detection", [SOUND, IDENTITY])
    def test_after_a_put_that_was_refused(self, log: EventLog, detection: Any, options: Any, item: Any, error: Any):
        story = Story(EventLogSaver(log, detection=detection, **options))
        story.put({"items": [A]})
        where, said, metadata, new = story.ready({"items": [A, B]})
        broken = {**said, "channel_values": {"items": [A, B, item]}}
        with pytest.raises(error):
            story.ours[0].put(where, broken, metadata, new)
        story.theirs.put(where, said, metadata, new)
        story.ours[0].put(where, said, metadata, new)
        story.check()
        story.put({"items": [A, B, C]})
        story.check_all()

    @pytest.mark.parametrize("detection", [SOUND, IDENTITY])
    def test_another_process_goes_on(self, tmp_path: Path, detection: Any):
        story = Story()
        for n in range(1, 8):
            with EventLogSaver.from_conn_string(tmp_path / "log", detection=detection) as saver:
                story.ours = (saver,)
                story.put({"items": [A, B, C, D][: n % 4]})
                story.put({"items": [A, B, C, D][: n % 4 + 1]})
                story.check_all()
                assert list(saver.log.verify()) == []


items_strategy = st.lists(st.integers(0, 5), max_size=5)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),  # which saver
        st.sampled_from(["latest", "latest", "latest", "older", "none", "again", "delete"]),
        st.one_of(
            st.tuples(st.just("grow"), items_strategy),
            st.tuples(st.just("grow"), items_strategy),
            st.tuples(st.just("set"), items_strategy),
            st.tuples(st.just("cut"), st.integers(0, 3)),
            st.tuples(st.just("copy"), st.none()),
            st.tuples(st.sampled_from(["gone", "empty", "text", "tuple"]), st.none()),
        ),
    ),
    max_size=14,
)
POOL: list[Any] = [A, B, {"k": [1]}, {"k": [True]}, "text", 1]


def changed(items: list[Any], how: str, what: Any) -> Any:
    if how in {"grow", "set"}:
        return (items if how == "grow" else []) + [POOL[n] for n in what]
    others = {"cut": items[:what], "copy": copy.deepcopy(items), "text": "t" * 300, "tuple": tuple(items)}
    return {**others, "gone": GONE, "empty": EMPTY}[how]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(TEAMS)), STEPS)
def test_any_sequence_of_lists_is_answered_as_upstream_answers(team, steps):
    log = EventLog.open("memory:")
    story = Story(*(EventLogSaver(log, detection=kind) for kind in TEAMS[team]))
    ids: list[str] = []
    items: list[Any] = []
    for turn, where, (how, what) in steps:
        by = turn % len(story.ours)
        if where == "delete":
            story.delete(by)
            ids.clear()
            continue
        value = changed(items, how, what)
        items = value if type(value) is list else items
        under = {"latest": ids[-1] if ids else None, "none": None}.get(where, ids[0] if ids else None)
        again = ids[-1] if where == "again" and ids else None
        values = {"other": 1} if value is GONE else {"other": 1, "items": value}
        ids.append(story.put(values, by=by, under=under, again=again))
    story.check_all()
    assert list(log.verify()) == []
    log.close()


# What differs -----------------------------------------------------------------------------------------------------


def contents(saver: Any, checkpoint_id: str | None = None) -> list[str]:
    found = saver.get_tuple(config(checkpoint_id)).checkpoint["channel_values"]["items"]
    return [item.content + item.additional_kwargs.get("mood", "") for item in found]


@pytest.mark.parametrize(
    ("detection", "later"), [(SOUND, ["new", "b", "c"]), (IDENTITY, ["old", "b", "c"])], ids=[SOUND, IDENTITY]
)
class TestChangedInPlace:
    def test_an_old_message_is_recorded_by_sound_comparison_alone(self, log, detection, later):
        story = Story(EventLogSaver(log, detection=detection))
        saver, message = story.ours[0], HumanMessage("old", id="m")
        saver.put(*story.ready({"items": [message, HumanMessage("b")]}))
        message.content = "new"
        saver.put(*story.ready({"items": [message, HumanMessage("b"), HumanMessage("c")][:1]}))
        assert contents(saver) == ["new"], "a list that did not grow is compared"
        kept = [message, HumanMessage("b")]
        saver.put(*story.ready({"items": kept}))
        message.content = "old"
        saver.put(*story.ready({"items": list(kept)}))
        assert contents(saver) == (["old", "b"] if detection == SOUND else ["new", "b"])
        assert contents(saver, "c00001") == ["old", "b"], "history stays"

    def test_an_old_message_of_a_list_that_grew(self, log, detection, later):
        story = Story(EventLogSaver(log, detection=detection))
        saver, items = story.ours[0], [HumanMessage("old", id="m"), HumanMessage("b")]
        saver.put(*story.ready({"items": items}))
        items[0].content = "new"
        items = [*items, HumanMessage("c")]
        saver.put(*story.ready({"items": items}))
        assert contents(saver) == later
        assert contents(saver, "c00001") == ["old", "b"]

    def test_something_within_an_old_message(self, log, detection, later):
        story = Story(EventLogSaver(log, detection=detection))
        saver, items = story.ours[0], [HumanMessage("old", id="m")]
        saver.put(*story.ready({"items": items}))
        items[0].additional_kwargs["mood"] = "!"
        saver.put(*story.ready({"items": [*items, HumanMessage("b")]}))
        assert contents(saver) == (["old!", "b"] if detection == SOUND else ["old", "b"])

    def test_between_two_processes_all_is_compared(self, tmp_path, detection, later):
        """Who opens a log has put nothing yet, so nothing can have changed behind its back."""
        story, items = Story(), [HumanMessage("old", id="m")]
        for content in ("old", "new"):
            items[0].content = content
            with EventLogSaver.from_conn_string(tmp_path / "log", detection=detection) as saver:
                saver.put(*story.ready({"items": items}))
                assert contents(saver) == [content]


# A real graph -----------------------------------------------------------------------------------------------------


class Chat(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    rounds: int


def chat(saver: Any) -> Any:
    """A few supersteps a turn: an answer, then one that edits, forgets or adds, as the round says."""

    def answer(state: Chat) -> Any:
        n = len(state["messages"])
        return {"messages": [AIMessage(f"answer {n}", id=f"a{state.get('rounds', 0)}")]}

    def tidy(state: Chat) -> Any:
        rounds, first = state.get("rounds", 0), state["messages"][0]
        changes: list[Any] = [
            [],
            [first.model_copy(update={"content": "edited"})],
            [RemoveMessage(first.id)],
            [HumanMessage("one more", id=f"more{rounds}"), AIMessage("and more", id=f"most{rounds}")],
            [RemoveMessage(REMOVE_ALL_MESSAGES), HumanMessage("summary", id="summary")],
        ]
        return {"messages": changes[rounds % 5], "rounds": rounds + 1}

    def more(state: Chat) -> str:
        return "answer" if state["rounds"] % 3 else END

    graph = StateGraph(Chat)
    graph.add_node("answer", answer)
    graph.add_node("tidy", tidy)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "tidy")
    graph.add_conditional_edges("tidy", more)
    return graph.compile(checkpointer=saver)


def talk(savers: list[Any], durability: Any) -> Any:
    """A conversation with an edit and a fork; the history as a user sees it."""
    for turn in range(5):
        graph = chat(savers[turn % len(savers)])
        graph.invoke({"messages": [HumanMessage("é" * 50, id=f"h{turn}")]}, config(), durability=durability)
    graph = chat(savers[0])
    first = graph.get_state(config()).values["messages"][0]
    graph.update_state(config(), {"messages": [RemoveMessage(first.id), HumanMessage("by hand", id="hand")]})
    graph.invoke({"messages": [HumanMessage("on", id="on")]}, config(), durability=durability)
    past = list(graph.get_state_history(config()))[-4]
    graph.invoke({"messages": [HumanMessage("fork", id="fork")]}, past.config, durability=durability)
    return [
        [(type(item), item.id, item.content) for item in snapshot.values.get("messages", [])]
        for snapshot in graph.get_state_history(config())
    ]


@pytest.mark.parametrize("durability", ["async", "exit"])
@pytest.mark.parametrize("team", TEAMS)
def test_a_conversation_is_remembered_as_by_upstreams_saver(log, team, durability):
    savers = [EventLogSaver(log, detection=kind) for kind in TEAMS[team]]
    assert talk(savers, durability) == talk([InMemorySaver()], durability)


# The option -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detection", ["", "Sound", "fast", None, True, b"sound"])
def test_another_detection_is_refused(tmp_path: Path, detection: Any):
    with EventLog.open("memory:") as log, pytest.raises(InvalidInputError, match='"sound" or "identity"'):
        EventLogSaver(log, detection=detection)


def test_a_refused_option_leaves_no_log_open(tmp_path: Path):
    """With "off" an open log keeps everybody else away."""
    with pytest.raises(InvalidInputError):
        EventLogSaver.from_conn_string(tmp_path / "log", synchronous="off", detection="fast")
    from eventlog.storage.local import LocalStorage

    LocalStorage(tmp_path / "log", synchronous="off", lock_timeout_s=0.2).close()


def test_a_clone_with_other_types_allowed_detects_as_its_original(log: EventLog):
    saver = EventLogSaver(log, detection="identity").with_allowlist([("tests", "Something")])
    story, items = Story(saver), [HumanMessage("old")]
    saver.put(*story.ready({"items": items}))
    items[0].content = "new"
    saver.put(*story.ready({"items": [*items, HumanMessage("b")]}))
    assert contents(saver) == ["old", "b"]


def test_a_list_that_grows_costs_what_was_added(log: EventLog):
    """That is what the option is for: neither detection writes what is there already."""
    for detection in (SOUND, IDENTITY):
        story = Story(EventLogSaver(log, detection=detection))
        saver = story.ours[0]
        chance = random.Random(1)
        items = [HumanMessage(chance.randbytes(500).hex()) for _ in range(200)]
        saver.put(*story.ready({"items": items}))
        for n in range(20):
            items = [*items, HumanMessage(f"more {n}")]
            saver.put(*story.ready({"items": items}))
        event = saver.run("t").head
        assert list(event.writes["items"].items) == items[-1:]
        saver.put(*story.ready({"items": list(items)}))
        assert "items" not in saver.run("t").head.writes
        saver.delete_thread("t")
