"""LangGraph's checkpointer and store on an event log: ``builder.compile(checkpointer=saver, store=store)``."""

from savers.langgraph.copied import Copied, CopyProblem
from savers.langgraph.moving import copy
from savers.langgraph.saver import EventLogSaver
from savers.langgraph.store import EventLogStore

__all__ = ["Copied", "CopyProblem", "EventLogSaver", "EventLogStore", "copy"]
