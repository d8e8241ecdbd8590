"""One thread on several processes at once, by way of a server that they share."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from savers.langgraph import EventLogSaver
from tests.crash.test_processes import in_child
from tests.engines import LOCATIONS, SHARED

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

THREAD: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def ask(state: State) -> dict[str, list[str]]:
    return {"said": [f"{len(state['said'])}: {interrupt('go on?')}"]}


def graph(saver: EventLogSaver) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", lambda state: "ask" if len(state["said"]) < 7 else END)
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=sorted(SHARED))
def location(request: pytest.FixtureRequest, tmp_path) -> str:
    return LOCATIONS[request.param](tmp_path)


def test_what_one_process_began_another_goes_on_with_at_once(location):
    def go_on(word: str) -> int:
        with EventLogSaver.from_conn_string(location) as saver:
            return len(graph(saver).invoke(Command(resume=word), THREAD)["said"])

    with EventLogSaver.from_conn_string(location) as saver:
        here = graph(saver)
        assert here.invoke({"said": ["begin"]}, THREAD)["__interrupt__"]
        for n in range(3):
            assert in_child(lambda: go_on("there")) == str(2 * n + 2)
            assert here.get_state(THREAD).values["said"][-1] == f"{2 * n + 1}: there"
            assert len(here.invoke(Command(resume="here"), THREAD)["said"]) == 2 * n + 3
        assert here.get_state(THREAD).values["said"] == [
            "begin", "1: there", "2: here", "3: there", "4: here", "5: there", "6: here"
        ]  # fmt: skip
        assert here.get_state(THREAD).next == ()
        assert list(saver.log.verify()) == []
