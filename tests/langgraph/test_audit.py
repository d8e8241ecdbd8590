"""Every checkpoint tells which task wrote what; where tasks extend one list, each new element names its task."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from savers.langgraph import EventLogSaver
from savers.langgraph.audit import Audit, aaudit, audit

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    unique: Annotated[list[str], lambda old, new: sorted({*old, *new})]
    n: int


@pytest.fixture
def saver(tmp_path):
    with EventLogSaver.from_conn_string(tmp_path / "log") as opened:
        yield opened


def fan(saver: EventLogSaver) -> Any:
    """left and right, beside each other; then two workers that left sends to."""
    builder = StateGraph(State)
    builder.add_node("right", lambda state: {"log": ["same", {"of": "right"}], "unique": ["b", "z"], "n": 1})
    builder.add_node("left", lambda state: {"log": [{"of": "left"}, "same"], "unique": ["c", "z"]})
    builder.add_node("worker", lambda task: {"log": [f"worker {task['n']}"]})
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_conditional_edges("left", lambda state: [Send("worker", {"n": n}) for n in (1, 2)], ["worker"])
    return builder.compile(checkpointer=saver)


def told(saver: EventLogSaver, step: int) -> Audit:
    """The audit of a thread's checkpoint of that step."""
    found = next(item for item in saver.list(CONFIG) if item.metadata["step"] == step)
    told = audit(saver, found.config)
    assert told is not None
    assert asyncio.run(aaudit(saver, found.config)) == told
    return told


def whose(told: Audit, channel: str) -> list[tuple[Any, ...]]:
    """Of each element that was added to a channel: its place, its nodes and what tells."""
    found = told.channel(channel)
    assert found is not None
    assert found.change == "extended"
    return [(element.index, *(task.node for task in element.tasks), element.by) for element in found.elements]


def test_two_parallel_nodes_that_extend_one_list(saver):
    result = fan(saver).invoke({"log": ["in"], "unique": ["a"]}, CONFIG)
    assert result["log"][1:5] == [{"of": "left"}, "same", "same", {"of": "right"}]
    found = told(saver, 1)
    assert (found.source, [task.node for task in found.tasks]) == ("loop", ["left", "right"])
    assert whose(found, "log") == [
        (1, "left", "value"),
        (2, "left", "value"),
        (3, "right", "value"),
        (4, "right", "value"),
    ]
    assert [task.node for task in found.channel("n").tasks] == ["right"]
    assert found.channel("n").change == "set"
    assert found.channel("branch:to:left").tasks == ()
    kept = {write.task: write.path for write in saver.run("t").task_writes(found.parent_id)}
    assert {task.id: task.path for task in found.tasks} == kept


def test_an_element_that_two_tasks_may_have_written_says_so(saver):
    fan(saver).invoke({"log": ["in"], "unique": ["a"]}, CONFIG)
    found = told(saver, 1)
    assert whose(found, "unique") == [(1, "right", "value"), (2, "left", "value"), (3, "left", "right", "value")]
    assert [element.is_ambiguous for element in found.channel("unique").elements] == [False, False, True]


def test_tasks_that_were_sent(saver):
    fan(saver).invoke({"log": ["in"]}, CONFIG)
    found = told(saver, 2)
    assert [task.node for task in found.tasks] == ["worker", "worker"]
    first, second = found.channel("log").elements
    assert (first.tasks, second.tasks) == ((found.tasks[0],), (found.tasks[1],))
    assert first.tasks[0].id != second.tasks[0].id


def test_an_input(saver):
    graph = fan(saver)
    graph.invoke({"log": ["in"]}, CONFIG)
    graph.invoke({"log": ["more"]}, CONFIG)
    for step in (-1, 3):
        found = told(saver, step)
        assert (found.source, found.tasks) == ("input", ())
        assert found.channel("__start__").change == "set"
    assert whose(told(saver, 4), "log") == [(7, "__start__", "value")]
    assert told(saver, -1).parent_id is None


def test_an_update_is_told_from_the_tasks_beside_it(saver):
    graph = fan(saver)
    graph.invoke({"log": ["in"]}, CONFIG, interrupt_before=["worker"])
    asked = graph.get_state(CONFIG).config
    graph.update_state(CONFIG, {"log": ["by hand"]}, as_node="right")
    updated = graph.get_state(CONFIG).config
    found = audit(saver, updated)
    assert (found.source, len(found.tasks)) == ("update", 1)
    assert found.channel("log").elements[0].tasks == found.tasks
    graph.invoke(None, asked)
    newest = audit(saver, CONFIG)
    assert [task.node for task in newest.tasks] == ["worker", "worker"]


def test_messages_that_the_reducer_gives_an_id(saver):
    builder = StateGraph(MessagesState)
    builder.add_node("one", lambda state: {"messages": [HumanMessage("1")]})
    builder.add_node("two", lambda state: {"messages": HumanMessage("2", id="given")})
    builder.add_edge(START, "one")
    builder.add_edge(START, "two")
    builder.compile(checkpointer=saver).invoke({"messages": [HumanMessage("in")]}, CONFIG)
    assert [(index, node) for index, node, _ in whose(told(saver, 1), "messages")] == [(1, "one"), (2, "two")]


def test_what_is_not_there(saver):
    assert audit(saver, CONFIG) is None
    assert asyncio.run(aaudit(saver, CONFIG)) is None


def test_a_channel_that_changed_before_its_end_names_its_tasks_as_a_whole(saver):
    builder = StateGraph(State)
    builder.add_node("one", lambda state: {"unique": ["0"], "n": 5})
    builder.add_edge(START, "one")
    builder.compile(checkpointer=saver).invoke({"unique": ["a"], "n": 5}, CONFIG)
    found = told(saver, 1)
    assert (found.channel("unique").change, found.channel("unique").elements) == ("set", ())
    assert [task.node for task in found.channel("unique").tasks] == ["one"]
    assert found.channel("n").change == "again"
    assert found.channel("log") is None


def test_where_langgraph_keeps_no_writes_no_task_is_named(saver):
    fan(saver).invoke({"log": ["in"]}, CONFIG, durability="exit")
    found = audit(saver, CONFIG)
    assert (found.tasks, found.channel("log").tasks) == ((), ())
    assert found.channel("log").change == "set"
