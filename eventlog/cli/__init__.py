"""The command line: looks at a log and changes nothing in it, but for `import`, which adds to it.

It runs on the core install, never touches the classes of what is stored, and is the only part of the engine that may
reach `savers`, lazily.
"""

from eventlog.cli.main import main

__all__ = ["main"]
