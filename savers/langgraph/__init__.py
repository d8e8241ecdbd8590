"""LangGraph's checkpointer on an event log: ``builder.compile(checkpointer=saver)``."""

from savers.langgraph.copied import Copied, CopyProblem
from savers.langgraph.moving import copy
from savers.langgraph.saver import EventLogSaver

__all__ = ["Copied", "CopyProblem", "EventLogSaver", "copy"]
