"""One turn of a thread in a log in an object store, for a process of its own."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from savers.langgraph import EventLogSaver

THREAD: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def chain(saver: EventLogSaver, length: int) -> Any:
    """A graph of so many supersteps."""
    builder = StateGraph(State)
    for n in range(length):
        builder.add_node(f"n{n}", lambda state: {"said": [f"turn {len(state['said'])}"]})
        builder.add_edge(f"n{n - 1}" if n else START, f"n{n}")
    builder.add_edge(f"n{length - 1}", END)
    return builder.compile(checkpointer=saver)


def go_on(url: str) -> int:
    """How many turns there are with this one."""
    with EventLogSaver.from_conn_string(url) as saver:
        return len(chain(saver, 1).invoke({"said": []}, THREAD)["said"])
