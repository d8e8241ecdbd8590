"""Imports go down only; each outside library is known to one room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = [
    {"errors"},
    {"align", "arrays", "identity", "ids", "layout", "patch", "pieces", "types"},
    {"events", "records"},
    {"codec"},
    {"flat"},
    {"shadow"},
    {"delta", "diff"},
    {"storage"},
    {"owners", "trunk"},
    {"lineage", "catalog"},
    {"entries"},
    {"naming", "snapshots", "tasks", "trails"},
    {"branches", "burial"},
    {"pairs"},
    {"shipping"},
    {"copying", "drafting", "feeding", "mirroring", "pruning", "state", "stretches", "verify"},
    {"run"},
    {"log"},
    {"query"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ENGINES = {"lmdb": {"lmdb"}, "postgres": {"psycopg", "psycopg_pool"}, "redis": {"redis"}, "objectstore": {"slatedb"}}
STANDARD = set(sys.stdlib_module_names)


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def room_of(path):
    parts = path.relative_to(ROOT / "eventlog").with_suffix("").parts
    return parts[0]


def imports(path):
    """Modules that a file imports, whether at its top or where they are used."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "eventlog" else [node.module]


@pytest.mark.parametrize("path", modules("eventlog"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_the_engine_go_down(path):
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "eventlog" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != room:
            assert LEVEL[parts[1]] < LEVEL[room], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules("eventlog"), ids=lambda path: str(path.relative_to(ROOT)))
def test_engine_needs_three_packages(path):
    outside = {name.split(".")[0] for name in imports(path)} - STANDARD - {"eventlog", "__future__"}
    allowed = {"msgpack", "xxhash"}
    if path.parent.name == "storage":
        allowed |= ENGINES.get(path.stem.split("_")[0], set())
    if room_of(path) == "cli":
        allowed.add("savers")
    assert outside <= allowed


def test_one_room_knows_lmdb():
    assert [path.name for path in modules("eventlog") if "lmdb" in imports_top(path)] == ["lmdb.py", "lmdb_env.py"]


def imports_top(path):
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", modules("savers"), ids=lambda path: str(path.relative_to(ROOT)))
def test_savers_stand_on_public_names(path):
    import eventlog

    for name in imports(path):
        if name.startswith("eventlog.") and name not in {"eventlog.arrays", "eventlog.types"}:
            assert name.split(".")[1] in eventlog.__all__, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules("savers"), ids=lambda path: str(path.relative_to(ROOT)))
def test_langgraph_is_imported_in_its_folder_only(path):
    if "langgraph" not in path.relative_to(ROOT).parts:
        assert not {"langgraph", "langchain_core", "pydantic"} & imports_top(path)
        assert not any(name.startswith("savers.langgraph") for name in imports(path))


def test_public_names_exist_and_are_sorted():
    import eventlog
    import savers

    for package in (eventlog, savers):
        assert all(hasattr(package, name) for name in package.__all__)
        in_order = sorted(package.__all__, key=lambda name: (not name.isupper(), name))  # constants first, as in ruff
        assert list(package.__all__) == in_order


def test_every_error_has_one_root():
    from eventlog import errors

    found = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, BaseException)]
    assert len(found) > 10
    assert all(issubclass(cls, errors.EventLogError) for cls in found)


def test_import_eventlog_pulls_in_no_framework():
    heavy = "('langgraph', 'langchain_core', 'pydantic', 'numpy')"
    program = f"import sys, eventlog, savers; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
