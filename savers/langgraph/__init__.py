"""LangGraph's checkpointer on an event log: ``builder.compile(checkpointer=saver)``."""

from savers.langgraph.saver import EventLogSaver

__all__ = ["EventLogSaver"]
