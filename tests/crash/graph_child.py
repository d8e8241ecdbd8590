"""A real graph of 20 supersteps, in processes that are killed at their k-th point: a call of the saver, or a task.

Started once, it imports LangGraph and then forks a process per line that it is told: a run takes tens of milliseconds.
Each process opens the log itself, goes on with the thread wherever it stands, and tells how it ended.

A round is five supersteps, and there are four: plan → left and right → join → three workers by `Send` → a subgraph. In
the second round `join` asks a person.
"""

from __future__ import annotations

import json
import operator
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from savers.langgraph import EventLogSaver

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 4
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    round: int
    log: Annotated[list[str], operator.add]
    inner: str


class Mortal(EventLogSaver):
    """Kills its process at the k-th point, before or after one of its writing calls or in a task; notes the points."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.kill_at = -1
        self.points: list[str] = []
        self.counting = threading.Lock()

    def reached(self, point: str) -> None:
        with self.counting:
            self.points.append(point)
            if len(self.points) - 1 == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        where = f"put {config['configurable'].get('checkpoint_ns', '').split(':')[0]} {metadata.get('step')}"
        self.reached(f"before {where}")
        put = super().put(config, checkpoint, metadata, new_versions)
        self.reached(f"after {where}")
        return put

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.reached("before put_writes")
        super().put_writes(config, writes, task_id, task_path)
        self.reached("after put_writes")


def built(effects: Path, reached: Callable[[str], None]) -> Any:
    """The graph; what each task does outside is to write a file, which is the same when it does so again."""

    def did(name: str) -> list[str]:
        reached(f"task {name}")
        (effects / name).write_text(name)
        return [name]

    def join(state: State) -> State:
        answer = interrupt("go on?") if state["round"] == 2 else "-"
        return {"log": did(f"join {state['round']} {answer}")}

    def sends(state: State) -> list[Send]:
        return [Send("worker", {"round": state["round"], "inner": f"{number}"}) for number in range(3)]

    inner = StateGraph(State)
    inner.add_node("one", lambda state: {"inner": did(f"one {state['round']}")[0]})
    inner.add_node("two", lambda state: {"log": did(f"two {state['round']} after {state['inner']}")})
    inner.add_edge(START, "one")
    inner.add_edge("one", "two")

    def sub(state: State) -> State:
        ended = inner_graph.invoke({"round": state["round"], "log": []})
        return {"log": ended["log"], "inner": ended["inner"]}

    inner_graph = inner.compile()
    outer = StateGraph(State)
    outer.add_node("plan", lambda state: {"round": state["round"] + 1, "log": did(f"plan {state['round'] + 1}")})
    outer.add_node("left", lambda state: {"log": did(f"left {state['round']}")})
    outer.add_node("right", lambda state: {"log": did(f"right {state['round']}")})
    outer.add_node("join", join)
    outer.add_node("worker", lambda task: {"log": did(f"worker {task['round']}.{task['inner']}")})
    outer.add_node("sub", sub)
    outer.add_edge(START, "plan")
    outer.add_edge("plan", "left")
    outer.add_edge("plan", "right")
    outer.add_edge(["left", "right"], "join")
    outer.add_conditional_edges("join", sends, ["worker"])
    outer.add_edge("worker", "sub")
    outer.add_conditional_edges("sub", lambda state: "plan" if state["round"] < ROUNDS else END, ["plan", END])
    return outer


def go_on(graph: Any, durability: str) -> dict[str, Any]:
    """Take the thread from wherever it stands to its end."""
    while True:
        state = graph.get_state(CONFIG)
        if state.created_at is None:
            given: Any = {"round": 0, "log": ["in"]}
        elif state.interrupts:
            given = Command(resume="yes")
        elif state.tasks:  # not `next`: that leaves out tasks that are done, even if the superstep is not
            given = None
        else:
            return {"values": state.values, "step": state.metadata["step"]}
        graph.invoke(given, CONFIG, durability=durability)


def run(location: str, durability: str, kill_at: int) -> dict[str, Any]:
    effects = Path(location + ".effects")
    effects.mkdir(exist_ok=True)
    with Mortal.from_conn_string(location) as saver:
        saver.kill_at = kill_at
        told = go_on(built(effects, saver.reached).compile(checkpointer=saver), durability)
        told["problems"] = list(map(str, saver.log.verify()))
    return {**told, "effects": sorted(path.name for path in effects.iterdir()), "points": saver.points}


def forked(location: str, durability: str, kill_at: int) -> dict[str, Any] | None:
    """How a process of its own ended; None if it was killed."""
    result = Path(location + ".json")
    process = os.fork()
    if process == 0:
        try:
            result.write_text(json.dumps(run(location, durability, kill_at)))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    return json.loads(result.read_text()) if status == 0 else {"failed": status}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(forked(*json.loads(line))), flush=True)
