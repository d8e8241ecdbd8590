"""The commands that look at a log: `ls`, `log`, `show`, `diff`.

Owns what each prints. They take the open log, the parsed arguments and the screen, and return the exit code.
"""

from __future__ import annotations

import sys
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

from eventlog.cli.addresses import Address, resolve, run_title
from eventlog.cli.arrays import change_text
from eventlog.cli.describe import summary, visible
from eventlog.cli.exits import DAMAGE, DIFFERS, OK, CommandError
from eventlog.cli.jsonable import change_fields, event_fields, jsonable, values_fields
from eventlog.cli.opening import open_run
from eventlog.cli.steps import Step, steps, steps_of_all
from eventlog.cli.values import FULL, Bounds, find, tree
from eventlog.diff import Diff, compare, path_text, printable, shown
from eventlog.errors import CorruptionError, FormatError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator, Mapping

    from eventlog.cli.addresses import Found
    from eventlog.cli.screen import Screen
    from eventlog.events import Event, RunName
    from eventlog.log import EventLog
    from eventlog.run import Run

_STATE_LINES: Final = 400
_MARK_COLUMN: Final = 56
_EMPTY: Final = "the empty state"


# --- ls ---------------------------------------------------------------------------------------------------------------


def ls(log: EventLog, args: Namespace, screen: Screen) -> int:
    """Print the runs; one that is damaged is named on stderr, and the others follow."""
    damaged: list[RunName] = []
    rows = _rows(log, damaged)
    if args.json:
        screen.document({"schema": "eventlog.ls/1", "store": log.location}, "runs", rows)
    else:
        _print_rows(log, rows, screen)
    return DAMAGE if damaged else OK


def _print_rows(log: EventLog, rows: Iterable[dict[str, Any]], screen: Screen) -> None:
    header = screen.paint(f"{'events':>9} {'branches':>9} {'step':>8}  {'last write':<19}  run", "dim")
    for row in rows:
        if header:
            screen.line(header)
        header = ""
        last = "-" if row["last_write"] is None else row["local_time"]
        title = run_title(row["run"] if isinstance(row["run"], str) else tuple(row["run"]))
        screen.line(f"{row['events']:>9,} {row['branches']:>9,} {row['step']:>8}  {last:<19}  {title}")
    if header:
        print(f"{log.location} has no runs yet", file=sys.stderr)


def _rows(log: EventLog, damaged: list[RunName]) -> Iterator[dict[str, Any]]:
    for name in log.runs():
        try:
            yield _row(name, open_run(log, name))
        except (CorruptionError, FormatError) as error:
            damaged.append(name)
            print(f"eventlog: run {run_title(name)!r}: {printable(str(error))}", file=sys.stderr)


def _row(name: RunName, run: Run) -> dict[str, Any]:
    branches = run.branches()
    heads = [branch.head for branch in branches if branch.head]
    last = max(heads, key=lambda head: head.time_ns, default=None)
    return {
        "run": list(name) if isinstance(name, tuple) else name,
        "events": run.count_events(),
        "branches": len(branches),
        "step": run.step,
        "last_write": last and last.time.isoformat(timespec="microseconds"),
        "local_time": last and f"{last.time.astimezone():%Y-%m-%d %H:%M:%S}",
    }


# --- log --------------------------------------------------------------------------------------------------------------


def log(log: EventLog, args: Namespace, screen: Screen) -> int:
    """Print a branch, or all branches of a run, newest first, a line as soon as it is known."""
    found = resolve(log, _address(args))
    if found.event is None:
        print(f"eventlog: run {found.address!r} has no events yet", file=sys.stderr)
    marks = _marks(found.run)
    told = _told(found, args)
    if args.json:
        items = (_step_fields(step, marks, args) for step in told)
        screen.document({"schema": "eventlog.log/1", "run": jsonable(_plain(found.run.name))}, "events", items)
        return OK
    widths = [4, 0]
    for step in told:
        screen.line(_log_line(step, marks, widths, args, screen))
        if args.patch:
            _print_diff(
                step.diff(visible(step.writes, everything=args.all)), (step.before, step.after), screen, "        "
            )
    return OK


def _told(found: Found, args: Namespace) -> Iterator[Step]:
    if found.event is None:
        return iter(())
    if args.all_branches:
        return steps_of_all(found.run, args.number)
    return steps(found.run, found.event, args.number)


def _marks(run: Run) -> dict[bytes, list[str]]:
    """Names of branches by the digest of their head."""
    marks: dict[bytes, list[str]] = {}
    for branch in run.branches():
        if branch.head:
            marks.setdefault(branch.head.digest, []).append(printable(branch.name))
    return marks


def _log_line(step: Step, marks: Mapping[bytes, list[str]], widths: list[int], args: Namespace, screen: Screen) -> str:
    """One step; the columns only ever grow, so that no line waits for a later one."""
    event = step.event
    number, task = str(event.step), printable(event.task or "-")
    if args.all_branches:
        number = f"@{printable(event.branch)}:{number}"
    widths[:] = max(widths[0], len(number)), max(widths[1], len(task))
    time = f"{event.time.astimezone():%Y-%m-%d %H:%M:%S}.{event.time.microsecond // 1000:03}"
    did = f"{task:<{widths[1]}}  {summary(step, everything=args.all)}"
    heads = ", ".join(f"head {name}" for name in marks.get(event.digest, []))
    if heads:
        did = f"{did:<{_MARK_COLUMN}}   {screen.paint(heads, 'head')}"
    return f"{number:>{widths[0]}}  {screen.paint(time, 'dim')}  {did}"


def _step_fields(step: Step, marks: Mapping[bytes, list[str]], args: Namespace) -> dict[str, Any]:
    fields = event_fields(step.event)
    fields["heads"] = marks.get(step.event.digest, [])
    fields["summary"] = summary(step, everything=args.all)
    if args.patch and not step.is_encrypted:
        fields["changes"] = _changes_fields(step.diff(visible(step.writes, everything=args.all)))
    return fields


# --- show -------------------------------------------------------------------------------------------------------------


def show(log: EventLog, args: Namespace, screen: Screen) -> int:
    """Print one event, the state after it, or one value of that state."""
    found = resolve(log, _address(args))
    event = found.required()
    if args.path is not None:
        return _show_value(find(found.run.at(event), args.path), args, screen)
    step, *parent = islice(steps(found.run, event, 2), 2)
    if args.json:
        screen.document(_show_fields(found.run, step, parent, args))
    else:
        _print_facts(found, step, parent, args, screen)
    return OK


def _show_value(value: Any, args: Namespace, screen: Screen) -> int:
    if args.json:
        screen.document({"schema": "eventlog.value/1", "path": args.path, "value": jsonable(value)})
    else:
        _print_bounded(tree(printable(args.path), value, FULL if args.full else Bounds()), args, screen)
    return OK


def _show_fields(run: Run, step: Step, parent: list[Step], args: Namespace) -> dict[str, Any]:
    channels = visible(step.writes, everything=args.all)
    fields = {"schema": "eventlog.show/1", **event_fields(step.event), "meta": jsonable(dict(step.event.meta))}
    fields["parent"] = parent[0].event.id if parent else None
    if step.is_encrypted:
        return {**fields, "is_encrypted": True}
    fields["by"] = [{"task": task, "path": path, "channels": names} for task, path, names in _tasks(run, parent)]
    fields["changes"] = _changes_fields(step.diff(channels))
    if args.state:
        fields["state"] = values_fields(step.after, visible(step.after, everything=args.all))
    return fields


def _print_facts(found: Found, step: Step, parent: list[Step], args: Namespace, screen: Screen) -> None:
    screen.line(screen.paint(found.address, "bold"))
    for name, text in _facts(found, step, parent):
        screen.line(f"{screen.paint(f'{name:<7}', 'dim')} {text}")
    screen.line(f"{screen.paint('writes ', 'dim')} {summary(step, everything=args.all)}")
    if step.is_encrypted:
        screen.line(screen.paint("        the saver that wrote it reads it, with its key", "dim"))
        return
    hidden = len(step.writes) - len(visible(step.writes, everything=args.all))
    if hidden:
        screen.line(screen.paint(f"        {hidden} of a saver's own channels not shown (--all shows them)", "dim"))
    if args.state:
        screen.line(screen.paint("state", "dim"))
        _print_bounded(_state_lines(step.after, args), args, screen)
    else:
        _print_diff(step.diff(visible(step.writes, everything=args.all)), (step.before, step.after), screen, "  ")


def _facts(found: Found, step: Step, parent: list[Step]) -> Iterator[tuple[str, str]]:
    event = step.event
    yield "id", printable(event.id)
    yield "task", printable(event.task or "-")
    yield "time", event.time.astimezone().isoformat(" ", "microseconds")
    if event.branch != found.run.branch_name:
        yield "branch", f"{printable(event.branch)} (wrote it)"
    yield "parent", found.address_of(parent[0].event) if parent else _none_before(event)
    for task, path, channels in () if step.is_encrypted else _tasks(found.run, parent):
        yield "by", printable(f"{path or '-'}  {task}: {', '.join(channels)}")
    for key, value in event.meta.items():
        yield "meta", f"{path_text([key])} = {shown(value)}"


def _none_before(event: Event) -> str:
    return "none: what came before was pruned" if event.seq else "none: this is the first event"


def _tasks(run: Run, parent: list[Step]) -> Iterator[tuple[str, str, list[str]]]:
    """The tasks that wrote after an event's parent: id, path, and the channels they wrote to."""
    writes = run.task_writes(parent[0].event) if parent else []
    for (path, task), written in groupby(writes, key=lambda write: (write.path, write.task)):
        yield task, path, list(dict.fromkeys(write.channel for write in written))


def _state_lines(state: Mapping[str, Any], args: Namespace) -> Iterator[str]:
    for channel in visible(state, everything=args.all):
        yield from tree(path_text([channel]), state[channel], FULL if args.full else Bounds(), 1)


def _print_bounded(lines: Iterator[str], args: Namespace, screen: Screen) -> None:
    for line in islice(lines, None if args.full else _STATE_LINES):
        screen.line(line)
    if not args.full and next(lines, None) is not None:
        screen.line(f"… cut after {_STATE_LINES} lines (--full shows all, --path P one value)")


# --- diff -------------------------------------------------------------------------------------------------------------


def diff(log: EventLog, args: Namespace, screen: Screen) -> int:
    """Print what differs from one state to another, or from an event's parent to the event."""
    titles, states = _sides(log, args)
    channels = [visible(state, everything=args.all) for state in states]
    old, new = ({name: state[name] for name in names} for state, names in zip(states, channels, strict=True))
    found = compare(old, new)
    if args.json:
        fields = {"schema": "eventlog.diff/1", "a": titles[0], "b": titles[1], "changes": _changes_fields(found)}
        screen.document(fields)
    else:
        print(f"{titles[0]} → {titles[1]}{'' if found else ': no difference'}", file=sys.stderr)
        _print_diff(found, (old, new), screen, "")
    return DIFFERS if found and args.exit_code else OK


def _sides(log: EventLog, args: Namespace) -> tuple[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Titles and states of both sides."""
    if args.run and args.other is not None:
        raise CommandError("--run names the first side, so give at most one address for the second")
    first = resolve(log, Address(None if args.run else args.address, tuple(args.run or ()), args.branch, args.step))
    other = args.address if args.run else args.other
    if other is None:
        return _with_parent(first)
    second = resolve(log, Address(other))
    return (first.address, second.address), (_state(first), _state(second))


def _with_parent(found: Found) -> tuple[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]]:
    event = found.required()
    parent = next(islice(found.run.events(stop=event, reverse=True), 1, None), None)
    before: Mapping[str, Any] = {} if parent is None else found.run.at(parent)
    title = found.address_of(parent) if parent else "nothing (what came before was pruned)" if event.seq else _EMPTY
    return (title, found.address), (before, found.run.at(event))


def _state(found: Found) -> Mapping[str, Any]:
    return found.run.at(found.event) if found.event else {}


def _print_diff(found: Diff, states: tuple[Mapping[str, Any], Mapping[str, Any]], screen: Screen, indent: str) -> None:
    for change in found:
        screen.line(indent + screen.paint(change_text(change, *states), change.mark))


def _changes_fields(found: Diff) -> list[dict[str, Any]]:
    return [change_fields(change) for change in found]


# --- arguments --------------------------------------------------------------------------------------------------------


def _address(args: Namespace) -> Address:
    if args.run and args.address is not None:
        raise CommandError("give an address or --run, not both")
    if not args.run and args.address is None:
        raise CommandError("name a run: an address such as RUN or RUN:12, or --run RUN")
    return Address(args.address, tuple(args.run or ()), args.branch, args.step)


def _plain(name: RunName) -> Any:
    return list(name) if isinstance(name, tuple) else name
