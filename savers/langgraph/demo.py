"""The agent of the demo: it books a flight, and the customer pays twice.

The card service takes the money and then answers 504; the agent tries again. Runs offline, without a key: the model is
a pure function of the conversation, so a process that was killed goes on where it was.

Owns the graph and the story; what it asks of the log, a user would ask the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import savers.inert  # noqa: F401 (registers how to show what is stored)
from eventlog import Diff, EventLog, FormatError, StorageError, known_codec
from savers.langgraph.saver import EventLogSaver
from savers.langgraph.serde import CODEC

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

    from eventlog import Run

THREAD = "trip-1"
KILL_AFTER_STEP = 6
_ANSWERS_BY_THEN = 2
FORK_AT_STEP = 9
PRICE = 180
MAIN, FIX = "main", "fix"
_HALTS = "EVENTLOG_DEMO_HALTS"
"""Set for the process that is killed: it waits for that where the story wants it, however slow the machine is."""
_POLL_S = 0.01
_WAIT_S = 180.0


class TravelModel(BaseChatModel):
    """A model that answers from the conversation alone; if `fixed`, it asks whether the card was charged already."""

    fixed: bool = False

    @property
    def _llm_type(self) -> str:
        return "travel-agent"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:  # noqa: ARG002 (LangChain's signature)
        """The tools are known."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: Any = None,  # noqa: ARG002 (LangChain's signature)
        run_manager: Any = None,  # noqa: ARG002 (LangChain's signature)
        **kwargs: Any,  # noqa: ARG002 (LangChain's signature)
    ) -> ChatResult:
        answers = [message for message in messages if isinstance(message, ToolMessage)]
        call = self._next_call(answers)
        if call is None:
            message = AIMessage("Your ticket is on its way.")
        else:
            message = AIMessage("", tool_calls=[{"name": call[0], "args": call[1], "id": f"call-{len(answers)}"}])
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _next_call(self, answers: list[ToolMessage]) -> tuple[str, dict[str, Any]] | None:
        if not answers:
            return "search_flights", {"to": "LIS"}
        last = answers[-1]
        if last.name == "search_flights":
            return "hold_seat", {"flight": "TP101"}
        if last.name == "hold_seat":
            return "charge_card", {"eur": PRICE, "attempt": 1}
        if last.name == "charge_card" and "504" in last.content:
            tries = sum(answer.name == "charge_card" for answer in answers)
            return (
                ("check_charge", {"eur": PRICE})
                if self.fixed
                else ("charge_card", {"eur": PRICE, "attempt": tries + 1})
            )
        if last.name in ("charge_card", "check_charge"):
            return "send_ticket", {"flight": "TP101"}
        return None


@tool
def search_flights(to: str) -> str:  # noqa: ARG001 (the model gives it)
    """Find a flight."""
    return f"TP101, {PRICE} EUR"


@tool
def hold_seat(flight: str) -> str:  # noqa: ARG001 (the model gives it)
    """Hold a seat."""
    return "14C held"


@tool
def charge_card(eur: int, attempt: int) -> str:
    """Charge the card. The first time the money is taken, and the answer is lost."""
    return "504 Gateway Timeout" if attempt == 1 else f"charged {eur}"


@tool
def check_charge(eur: int) -> str:
    """Ask whether the card was charged."""
    return f"yes, {eur} EUR"


@tool
def send_ticket(flight: str) -> str:  # noqa: ARG001 (the model gives it)
    """Send the ticket."""
    return "sent"


class State(MessagesState):
    """The conversation, and what the customer has paid."""

    spent: int


def build(saver: EventLogSaver, *, fixed: bool = False) -> CompiledStateGraph[Any]:
    """The agent's graph on a saver."""
    model = TravelModel(fixed=fixed)

    def agent(state: State) -> dict[str, Any]:
        answers = sum(isinstance(message, ToolMessage) for message in state["messages"])
        if _HALTS in os.environ and answers == _ANSWERS_BY_THEN:
            sys.stdin.read()  # which ends with the process that is to kill this one, too
        return {"messages": [model.invoke(state["messages"])]}

    def ledger(state: State) -> dict[str, Any]:
        paid = PRICE if getattr(state["messages"][-1], "name", "") == "charge_card" else 0
        return {"spent": state["spent"] + paid}

    graph = StateGraph(State)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([search_flights, hold_seat, charge_card, check_charge, send_ticket]))
    graph.add_node("ledger", ledger)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "ledger")
    graph.add_edge("ledger", "agent")
    return graph.compile(checkpointer=saver)


def travel(store: str) -> None:
    """Book the flight, or go on with the booking where it stopped. What the demo's child process does."""
    config: RunnableConfig = {"configurable": {"thread_id": THREAD}}
    with EventLogSaver.from_conn_string(store) as saver:
        graph = build(saver)
        begun = graph.get_state(config).values
        first = None if begun else {"messages": [("user", "book Lisbon")], "spent": 0}
        for _ in graph.stream(cast("Any", first), config, durability="sync"):
            pass


def main(directory: Path, out: TextIO) -> None:
    """Tell the story, in a store at `directory`, which is left there."""
    _Story(directory, out).tell()


class _Story:
    """One telling; each step is what a user would do."""

    def __init__(self, directory: Path, out: TextIO) -> None:
        self.store = str(directory)
        self.out = out

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def tell(self) -> None:
        """From the first booking to the fixed one."""
        self._run_and_kill()
        self._resume()
        bad = self._find()
        self._fork()
        self.say(self._next_commands(bad))

    def _child(self, **options: str) -> subprocess.Popen[bytes]:
        program = "import sys; from savers.langgraph.demo import travel; travel(sys.argv[1])"
        env = {**os.environ, **options, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", program, self.store]
        return subprocess.Popen(command, env=env, stdin=subprocess.PIPE)  # noqa: S603 (our own program)

    def _run_and_kill(self) -> None:
        self.say(f"1. An agent books a flight; its checkpoints go to {self.store}")
        with self._child(**{_HALTS: "1"}) as child:
            try:
                last = self._wait_for_step(child)
            finally:
                child.kill()
        self.say(f"   kill -9 after step {last}: {self._conversation(last)}")

    def _wait_for_step(self, child: subprocess.Popen[bytes]) -> int:
        """Wait until the child has got as far as it is to get, by what the log says."""
        deadline = time.monotonic() + _WAIT_S
        while child.poll() is None and time.monotonic() < deadline:
            last = self._last_step()
            if last >= KILL_AFTER_STEP:
                return last
            time.sleep(_POLL_S)
        raise StorageError("the agent did not get as far as it should; see what it printed above")

    def _last_step(self) -> int:
        try:
            with EventLog.open(self.store, readonly=True) as log:
                return self._run(log).step
        except FormatError:  # the child has not made the store yet
            return -1

    def _run(self, log: EventLog) -> Run:
        """The thread's run; values shown without building the classes they were made of."""
        return log.run(THREAD, codec=known_codec(CODEC))

    def _conversation(self, step: int) -> str:
        with EventLog.open(self.store, readonly=True) as log:
            messages = self._run(log).at(step)["messages"]
        return f"{len(messages)} messages, the last one {messages[-1].get('content')!r}"

    def _resume(self) -> None:
        begun = self._last_step()
        with self._child() as child:
            if child.wait():
                raise StorageError("the resumed agent failed; see what it printed above")
        with EventLog.open(self.store, readonly=True) as log:
            run = self._run(log)
            self.say(f"2. Another process resumes at step {begun} and ends at step {run.step}.")
            self.say(f"   The customer has paid {run.state['spent']} EUR for a ticket of {PRICE}.")

    def _find(self) -> int:
        """The first step at which too much was spent, by one pass over the log, looking only where `spent` changed."""
        with EventLog.open(self.store, readonly=True) as log:
            run = self._run(log)
            bad = next(
                event.step for event, state in run.replay() if "spent" in event.writes and state["spent"] > PRICE
            )
            self.say(f"3. The first step with spent > {PRICE} is step {bad}. What it changed, and the step before it:")
            self.say(_shown(run.diff(bad - 1, bad)))
            self.say(_shown(run.diff(bad - 2, bad - 1)))
        return bad

    def _fork(self) -> None:
        """Go on from before the mistake, with a model that asks before it pays again."""
        with EventLogSaver.from_conn_string(self.store) as saver:
            run = self._run(saver.log)
            base = run.event(FORK_AT_STEP)
            fixed = run.fork(at=base, name=FIX)
            config: RunnableConfig = {"configurable": {"thread_id": THREAD, "checkpoint_id": base.id}}
            final = build(saver, fixed=True).invoke(None, config, durability="sync")
            fixed.refresh()
            self.say(f"4. Forked at step {FORK_AT_STEP}, before the second charge, and run again with a fixed model:")
            self.say(f"   branch {FIX!r} ends at step {fixed.step}; the customer has paid {final['spent']} EUR.")
            self.say(f"5. What differs from {MAIN!r} to {FIX!r}, at their ends:")
            self.say(_shown(saver.log.diff(run.state, fixed.state)))

    def _next_commands(self, bad: int) -> str:
        commands = (
            f"eventlog log {THREAD}@{MAIN}",
            f"eventlog log {THREAD}@{FIX}",
            f"eventlog show {THREAD}@{MAIN}:{bad}",
            f"eventlog diff {THREAD}@{MAIN}:{bad - 1} {THREAD}@{MAIN}:{bad}",
            f"eventlog diff {THREAD}@{MAIN} {THREAD}@{FIX}",
        )
        lines = [f"   {command} -s {self.store}" for command in commands]
        return "\n".join(["The store stays where it is. Look around:", *lines])


def _shown(diff: Diff) -> str:
    """What changed for the user; a saver's and a graph's bookkeeping is left out, and random ids of messages."""
    hidden = ("~", "__", "branch:")
    told = (change for change in diff if not str(change.path[0]).startswith(hidden) and change.path[-1] != "id")
    shown = Diff(tuple(told))
    return "\n".join(f"   {line}" for line in str(shown).splitlines())
