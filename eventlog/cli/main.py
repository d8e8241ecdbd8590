"""From `argv` to an exit code.

Owns the arguments, where the store is looked for, and what becomes of errors: a message on stderr that says what to do,
and an exit code (`eventlog.cli.exits`).
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import eventlog
from eventlog.cli import commands, demo, moving, shipping
from eventlog.cli.exits import CLOSED_PIPE, INTERRUPTED, IO_FAILED, NO_STORE, USAGE, CommandError, exit_code
from eventlog.cli.screen import Screen, wants_color
from eventlog.diff import printable
from eventlog.errors import EventLogError, FormatError
from eventlog.log import EventLog

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

DEFAULT_STORE: Final = ".eventlog"
_ADDRESS_HELP: Final = "RUN, RUN@BRANCH, RUN:STEP, RUN@BRANCH:STEP, RUN~N, RUN:first, RUN:last or RUN:ID"
_STORE_HELP: Final = "the log: a directory, or sqlite:///FILE (default: $EVENTLOG_STORE, else ./.eventlog)"
_LOOKERS: Final = {"ls": commands.ls, "log": commands.log, "show": commands.show, "diff": commands.diff}
_MOVERS: Final = ("import", "copy-out")
_STDERR: Final = 2


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    _fill_descriptors()
    if sys.stdout is None:
        print("eventlog: stdout is closed, so nothing can be told; send it to /dev/null instead", file=sys.stderr)
        return IO_FAILED
    try:
        code = _main(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return CLOSED_PIPE
    except OSError as error:
        return _io_failed(error)
    return code


def _fill_descriptors() -> None:
    """Open what of stdin, stdout and stderr is closed: a file of a log that got its number would be printed into."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    if sys.stderr is None:  # which `print` would take for stdout
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open to the end)


def _main(argv: list[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
    except SystemExit as end:  # argparse: 0 after --help, 2 after a usage message
        return end.code if isinstance(end.code, int) else USAGE
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal shows what it can
    try:
        if args.command == "demo":
            return demo.run(args.kind, args.dir, sys.stdout)
        if args.command in _MOVERS:
            return _move(args)
        if args.command == "copy":
            return _copy(args)
        return _look(args)
    except CommandError as error:
        print(f"eventlog: {error}", file=sys.stderr)
        return error.code
    except EventLogError as error:
        print(f"eventlog: {printable(str(error))}", file=sys.stderr)
        return exit_code(error)


def _look(args: Namespace) -> int:
    screen = Screen(sys.stdout, color=not args.json and wants_color(args.color, sys.stdout))
    with _open(_store(args)) as log:
        return _LOOKERS[args.command](log, args, screen)


def _move(args: Namespace) -> int:
    is_import = args.command == "import"
    kind, where = args.other
    order = moving.Order(kind, where, args.thread, args.allow, is_verified=args.is_verified)
    opener = EventLog.open if is_import else _open
    return moving.run(lambda: opener(_store(args)), order, sys.stdout, is_import=is_import)


def _copy(args: Namespace) -> int:
    opened = _open if args.only_verify else EventLog.open
    if os.path.realpath(args.source) == os.path.realpath(args.target):
        raise CommandError("SOURCE and TARGET are the same log; give another place")
    if args.follow:
        places = partial(_open, args.source), partial(EventLog.open, args.target)
        return shipping.follow(*places, args.interval, sys.stdout)
    with _open(args.source) as source, opened(args.target) as target:
        if args.only_verify:
            return shipping.verify(source, target, sys.stdout)
        return shipping.copy(source, target, sys.stdout, is_verified=args.is_verified)


def _store(args: Namespace) -> str:
    """The store that was named: after the command, by option, by the environment, or the default."""
    return args.place or args.store or os.environ.get("EVENTLOG_STORE") or DEFAULT_STORE


def _open(store: str) -> EventLog:
    try:
        return EventLog.open(store, readonly=True)
    except FormatError as error:
        what = str(error) if Path(store.removeprefix("sqlite:///")).exists() else f"there is no log at {store}"
        hint = "name one with -s PATH or EVENTLOG_STORE; `eventlog demo` makes one to look at"
        raise CommandError(f"{printable(what)}; {hint}", NO_STORE) from error


def _discard_stdout() -> None:
    """Nobody takes what is printed (`| head` is done): the interpreter, too, flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _io_failed(error: OSError) -> int:
    """Say what could not be written, read or run; only what is printed has no file's name."""
    if error.filename is None:
        _discard_stdout()
        what = "write to stdout"
    else:
        what = f"use {printable(str(error.filename))}"
    print(f"eventlog: cannot {what}: {error.strerror or error}", file=sys.stderr)
    return IO_FAILED


# --- arguments --------------------------------------------------------------------------------------------------------


def _parser() -> ArgumentParser:
    parser = argparse.ArgumentParser("eventlog", description="Look at a log: what happened, step by step.")
    parser.add_argument("--version", action="version", version=f"eventlog {eventlog.__version__}")
    parser.add_argument("-s", "--store", metavar="STORE", help=_STORE_HELP)
    parser.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    parser.set_defaults(place=None)
    common = _common()
    of_commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_ls, _add_log, _add_show, _add_diff):
        add(of_commands, common)
    _add_moving(of_commands)
    _add_copy(of_commands)
    _add_demo(of_commands)
    return parser


def _common() -> list[ArgumentParser]:
    """The options that stand after a command as well as before it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-s", "--store", metavar="STORE", default=argparse.SUPPRESS, help="the log")
    common.add_argument("--color", choices=["auto", "always", "never"], default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    return [common]


def _add_ls(of_commands: argparse._SubParsersAction[ArgumentParser], common: list[ArgumentParser]) -> None:
    ls = of_commands.add_parser("ls", parents=common, help="the runs", description="List the runs of a log.")
    ls.add_argument("place", nargs="?", metavar="STORE", help="the log, as --store")


def _add_log(of_commands: argparse._SubParsersAction[ArgumentParser], common: list[ArgumentParser]) -> None:
    log = of_commands.add_parser("log", parents=common, help="the steps of a run, newest first")
    _add_address(log)
    log.add_argument("-n", "--number", type=_count, metavar="N", help="at most N steps")
    log.add_argument("-p", "--patch", action="store_true", help="with the full diff of each step")
    log.add_argument("--all-branches", action="store_true", help="the steps of every branch")


def _add_show(of_commands: argparse._SubParsersAction[ArgumentParser], common: list[ArgumentParser]) -> None:
    show = of_commands.add_parser("show", parents=common, help="one step: who, when, what changed")
    _add_address(show)
    show.add_argument("--state", action="store_true", help="the whole state after it")
    show.add_argument("--path", metavar="P", help="one value of the state: messages[-1].content")
    show.add_argument("--full", action="store_true", help="cut nothing")


def _add_diff(of_commands: argparse._SubParsersAction[ArgumentParser], common: list[ArgumentParser]) -> None:
    diff = of_commands.add_parser("diff", parents=common, help="what differs between two states")
    _add_address(diff)
    diff.add_argument("other", nargs="?", metavar="B", help="as ADDRESS; without it, ADDRESS against its parent")
    diff.add_argument("--exit-code", action="store_true", help="exit 1 if they differ")


def _add_demo(of_commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    made = of_commands.add_parser("demo", help="make a log to look at, and tell its story")
    made.add_argument("kind", nargs="?", choices=["agent", "physics"], help="default: agent if LangGraph is installed")
    made.add_argument("--dir", metavar="PATH", help="an empty or new directory (default: a new temporary one)")


def _add_moving(of_commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    kinds = f"KIND is {', '.join(moving.KINDS)}; WHERE a file, a DSN, module:factory"
    for name, option, text in (
        ("import", "--from", "copy threads of a LangGraph saver into the log; run it again to go on"),
        ("copy-out", "--to", "copy threads of the log into a LangGraph saver; run it again to go on"),
    ):
        parser = of_commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.add_argument(option, dest="other", nargs=2, metavar=("KIND", "WHERE"), required=True, help=kinds)
        parser.add_argument("-s", "--store", metavar="PATH", default=argparse.SUPPRESS, help="the log")
        parser.add_argument("--thread", action="append", metavar="ID", help="only this one; may be given again")
        parser.add_argument("--allow", action="append", default=[], metavar="TYPE", help="module.Name that may be read")
        parser.add_argument("--no-verify", dest="is_verified", action="store_false", help="do not compare at the end")


def _add_copy(of_commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    parser = of_commands.add_parser(
        "copy",
        help="make another log what this one is, on any engine; run it again to go on",
        description="Make TARGET what SOURCE is, key by key, on any engine; run it again to go on where it was "
        "stopped. Nobody else may write TARGET, which is a new log or an earlier copy of SOURCE.",
        epilog="Exit codes: 0 both are equal, 1 they differ, 2 TARGET is no copy of SOURCE, 3 there is no log, "
        "4 damage, 5 busy or full, 130 interrupted.",
    )
    parser.add_argument("source", metavar="SOURCE", help="the log: a directory or a URL")
    parser.add_argument("target", metavar="TARGET", help="where to copy it: a directory or a URL")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="go on shipping what is written, until interrupted")
    how.add_argument("--verify", dest="only_verify", action="store_true", help="copy nothing; say where they differ")
    how.add_argument("--no-verify", dest="is_verified", action="store_false", help="do not compare at the end")
    parser.add_argument("--interval", type=_seconds, default=0.5, metavar="S", help="of --follow, default 0.5 s")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:  # noqa: PLR2004 (an hour)
        raise argparse.ArgumentTypeError("more than 0, and at most 3600")
    return seconds


def _add_address(parser: ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", metavar="ADDRESS", help=_ADDRESS_HELP)
    parser.add_argument("--run", action="append", metavar="NAME", help="the run; once per part of its name")
    parser.add_argument("--branch", metavar="NAME")
    parser.add_argument("--step", type=int, metavar="N")
    parser.add_argument("--all", action="store_true", help="also the channels that a saver keeps for itself (~…)")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return min(number, sys.maxsize)
