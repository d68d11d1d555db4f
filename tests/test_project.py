"""What holds for the whole tree: directions of imports, dependencies, files, and the build."""

import ast
import importlib.metadata
import itertools
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("labelops", "pipelines", "flows")

# What a package may never import, whatever the file.
FORBIDDEN = {
    "labelops": {
        *("pipelines", "flows", "prefect", "dask", "distributed", "pyarrow", "pandas", "fsspec"),
        *("logging", "pathlib", "shutil", "time", "datetime", "random"),
    },
    "pipelines": {"flows", "prefect"},
    "flows": set(),
}
# What only one place may import, so that the rest starts without it.
ONLY_IN = {
    # pipelines opens the files of models, which the mathematics must not see.
    "torch": ("labelops/nn/", "pipelines/"),
    "torchvision": ("labelops/nn/",),
    "numba": ("labelops/fast/",),
    # Of the mathematics, only what runs on threads may ask how many cores there are.
    "os": ("labelops/nn/", "pipelines/", "flows/"),
    "dask": ("pipelines/core/graph.py", "pipelines/core/cluster.py"),
    "distributed": ("pipelines/core/cluster.py",),
    "prefect": ("flows/",),
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Top-level names that a module imports anywhere, also inside functions, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node.lineno


def misdirected(package: str, path: str, tree: ast.AST) -> list[str]:
    found = []
    for name, line in imported(tree):
        places = ONLY_IN.get(name, ("",))
        if name in FORBIDDEN[package] or not path.startswith(places):
            found.append(f"{path}:{line} imports {name}")
    return found


def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(), filename=str(path))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports__point_from_flows_to_pipelines_to_labelops(package: str) -> None:
    found = [
        fault
        for path in modules(package)
        for fault in misdirected(package, path.relative_to(ROOT).as_posix(), parsed(path))
    ]
    assert not found


def imported_modules(tree: ast.AST, known: Collection[str]) -> Iterator[str]:
    """Modules among the known ones that a module imports when it runs, also inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                yield from [name for name in (within, node.module) if name in known][:1]
        yield from imported_modules(node, known)


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import each other; empty if there are none."""
    left = dict(imports)
    while free := [name for name, others in left.items() if not others & set(left) - {name}]:
        for name in free:
            del left[name]
    return sorted(left)


def imports_of(package: str) -> dict[str, set[str]]:
    """Return which modules of a package each of them imports."""
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in modules(package)
    }
    return {name: set(imported_modules(parsed(path), trees)) for name, path in trees.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports__go_in_no_circle(package: str) -> None:
    assert circle_in(imports_of(package)) == []


ROOMS = {
    **{"errors": 0, "storage": 1, "registry": 2, "recipe": 3, "core": 4},
    **{"media": 5, "labels": 5, "bags": 6, "inference": 6, "maps": 7, "students": 7},
    **{"selection": 7, "decisions": 8, "soft": 9, "stages": 10, "report": 11},
    **{"run": 12, "plan": 13, "verify": 13},
}
"""Inside `pipelines/` imports go from higher rooms to lower ones, and within a room."""


def upwards(imports: Mapping[str, set[str]]) -> list[str]:
    """Return imports of a room that is not below."""
    found = []
    for module, others in imports.items():
        for other in others:
            a, b = (name.split(".")[1] for name in (module, other))
            if a != b and ROOMS[a] <= ROOMS[b]:
                found.append(f"{module} imports {other}")
    return found


def test_rooms__of_pipelines_import_downwards_only() -> None:
    imports = imports_of("pipelines")
    imports.pop("pipelines")
    assert {name.split(".")[1] for name in imports} == set(ROOMS)
    assert upwards(imports) == []
    assert len([name for name in ROOMS if (ROOT / "pipelines" / f"{name}.py").is_file()]) <= 6


def test_rooms__an_import_upwards_is_seen() -> None:
    assert upwards({"pipelines.core.work": {"pipelines.labels.space"}}) == [
        "pipelines.core.work imports pipelines.labels.space"
    ]
    assert upwards({"pipelines.inference.heads": {"pipelines.bags.totals"}}) != []


def test_circle__is_seen() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    known = {"a", "a.b"}
    source = "import a\nif TYPE_CHECKING:\n    import a.b\ndef f():\n    from a import b, other"
    assert list(imported_modules(ast.parse(source), known)) == ["a", "a.b", "a"]


@pytest.mark.parametrize(
    ("package", "path", "source"),
    [
        ("labelops", "labelops/checks.py", "import prefect"),
        ("labelops", "labelops/checks.py", "from pipelines.storage.store import Store"),
        ("labelops", "labelops/checks.py", "def f():\n    import torch.nn"),
        ("labelops", "labelops/checks.py", "from os import path"),
        ("pipelines", "pipelines/run.py", "from flows.cli import main"),
        ("pipelines", "pipelines/run.py", "import dask.array as da"),
    ],
)
def test_imports__a_planted_wrong_one_is_found(package: str, path: str, source: str) -> None:
    assert len(misdirected(package, path, ast.parse(source))) == 1


def test_print__is_called_in_flows_only() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("labelops", "pipelines")
        for path in modules(package)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not calls


def test_pickle__is_imported_nowhere() -> None:
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in PACKAGES
        for path in modules(package)
        for name, line in imported(parsed(path))
        if name in banned
    ]
    assert not found


MOST_BY_POSITION = 8
"""Parameters that a function may take by position: of more, nobody sees which one is swapped."""


def crowded(path: str, tree: ast.AST) -> list[str]:
    """Return functions that take too much by position."""
    return [
        f"{path}:{node.lineno} {node.name} takes {n} by position, more than {MOST_BY_POSITION}. "
        "Bring arrays that belong together into a NamedTuple, and settings behind a *"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n := len(node.args.posonlyargs) + len(node.args.args)) > MOST_BY_POSITION
    ]


def untyped(path: str, tree: ast.AST) -> list[str]:
    """Return where settings may be anything, so that no checker finds a misspelt one."""
    return [
        f"{path}:{node.lineno} {ast.unparse(node)}: name the class of the settings"
        for node in ast.walk(tree)
        if isinstance(node, ast.arg | ast.AnnAssign) and ast.unparse(node).startswith("config: Any")
    ]


def loose(path: str, tree: ast.AST) -> list[str]:
    """Return public functions that take settings by position, among data that they work on."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (node.name[0] != "_" or node.name == "__init__"):
            taken = [arg for arg in node.args.posonlyargs + node.args.args if arg.annotation]
            kinds = {arg.arg: ast.unparse(arg.annotation) for arg in taken}
            settings = [name for name, kind in kinds.items() if kind in {"float", "bool"}]
            if settings and not set(kinds.values()) <= {"int", "float", "bool"}:
                found.append(f"{path}:{node.lineno} {node.name}: bring {settings} behind a *")
    return found


def unguarded(path: str, tree: ast.AST) -> list[str]:
    """Return where arrays are read from files that other threads may read from, too."""
    return [
        f"{path}:{node.lineno} np.load: take pipelines.storage.arrays"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "np.load"
        if path != "pipelines/storage/arrays.py"
    ]


PROMISES = [
    *itertools.product(PACKAGES, (crowded, untyped, unguarded)),
    ("labelops", loose),
]


@pytest.mark.parametrize(("package", "faults"), PROMISES)
def test_code__takes_little_by_position_types_settings_and_guards_files(
    package: str, faults: Callable[[str, ast.AST], list[str]]
) -> None:
    paths = modules(package)
    found = [faults(path.relative_to(ROOT).as_posix(), parsed(path)) for path in paths]
    assert not [fault for of_file in found for fault in of_file]


def test_signatures__a_planted_wrong_one_is_found() -> None:
    assert not crowded("a.py", ast.parse("def f(a, b, /, c, d, e, f, g, h, *, i): ..."))
    assert len(crowded("a.py", ast.parse("def f(a, b, /, c, d, e, f, g, h, i): ..."))) == 1
    assert not loose("a.py", ast.parse("def f(x: Array, *, y: float): ...\ndef g(a: float): ..."))
    assert len(loose("a.py", ast.parse("def f(x: Array, k: int, y: float): ..."))) == 1
    assert not untyped("a.py", ast.parse("def f(config: Config, other: Any): ..."))
    assert len(untyped("a.py", ast.parse("def f(*, config: Any): ..."))) == 1
    assert len(untyped("a.py", ast.parse("class A:\n    config: Any"))) == 1
    assert len(unguarded("a.py", ast.parse("x = np.load(path)"))) == 1


def test_future_annotations__are_off_where_shapes_may_be_checked_at_run_time() -> None:
    found = [
        str(path.relative_to(ROOT))
        for package in ("labelops", "pipelines")
        for path in modules(package)
        if any(name == "__future__" for name, _ in imported(parsed(path)))
    ]
    assert not found


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


EXTRAS = "s3", "export", "text"


def declared(extra: str | None = None) -> dict[str, Requirement]:
    table = project()
    lines = table["optional-dependencies"][extra] if extra else table["dependencies"]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def listed(name: str) -> dict[str, Requirement]:
    """Requirements in an .in file, without the files that it includes."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    found = (Requirement(line) for line in lines if line and not line.startswith("-"))
    return {canonicalize_name(r.name): r for r in found}


def pinned(name: str) -> dict[str, str]:
    """Name and version of each pin, each with at least one hash."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    pins = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"([\w.-]+)==(\S+)( ;[^-]*)?(\s+--hash=sha256:[0-9a-f]{64})+", line)
        assert match, f"{name}: a pin with hashes and nothing else was expected, got {line[:80]!r}"
        pins[canonicalize_name(match[1])] = match[2]
    return pins


def test_dependencies__are_the_same_in_pyproject_and_in_what_is_locked() -> None:
    assert declared().keys() == listed("requirements.in").keys()
    for extra in EXTRAS:
        assert declared(extra).keys() <= listed("requirements-dev.in").keys()


def test_dependencies__pins_carry_hashes_and_meet_every_bound() -> None:
    pins = pinned("requirements.txt")
    asked = [*declared().values()]
    asked += [bound for extra in EXTRAS for bound in declared(extra).values()]
    asked += [*listed("requirements.in").values(), *listed("requirements-dev.in").values()]
    unmet = [
        f"{r} but {pins.get(canonicalize_name(r.name))} is pinned"
        for r in asked
        if pins.get(canonicalize_name(r.name), "0") not in r.specifier
    ]
    assert not unmet
    assert list(pinned("requirements-uv.txt")) == ["uv"]


def test_dependencies__what_is_installed_is_what_is_pinned() -> None:
    pins = pinned("requirements.txt")
    installed = {
        canonicalize_name(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()
    }
    other = {n: (v, installed.get(n)) for n, v in pins.items() if installed.get(n) != v}
    assert not other


def test_dependencies__everything_imported_is_declared() -> None:
    known = importlib.metadata.packages_distributions()
    allowed = set(declared()).union(*map(declared, EXTRAS))
    undeclared = {
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in PACKAGES
        for path in modules(package)
        for name, line in imported(parsed(path))
        if name not in sys.stdlib_module_names
        and name not in PACKAGES
        and not {canonicalize_name(d) for d in known.get(name, [])} & allowed
    }
    assert not undeclared


def tracked() -> list[Path]:
    """Files of the project: in git, or new and not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files belong to the project")
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text()
        except UnicodeDecodeError:
            continue


# Written in pieces, so that this file passes its own test.
PLACES = re.compile(
    "|".join(
        [
            r"pypi\." + "org",
            "python" + "hosted",
            r"registry\." + "npmjs",
            r"deb\." + r"debian",
            r"(?<![\w.}|])/(?:root" + "|home|work|Users|workspace)/",
        ]
    )
)


def test_files__name_no_package_server_and_no_folder_of_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {match[0]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := PLACES.search(line))
    ]
    assert not found


@pytest.mark.parametrize(
    "line", ["cd /r" + "oot/x", "--index https://py" + "pi.org/simple", "'/h" + "ome/me/data'"]
)
def test_files__a_planted_address_is_found(line: str) -> None:
    assert PLACES.search(line)


def test_files__stay_under_600_kb() -> None:
    assert not [str(path) for path in tracked() if path.stat().st_size > 600 * 1024]


def test_pre_commit__guards_the_size_that_this_test_guards() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "--maxkb=600" in text
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pre_commit",
            "validate-config",
            str(ROOT / ".pre-commit-config.yaml"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci__runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    commands = [
        line for line in script.read_text().splitlines() if line and not line.startswith("#")
    ]
    assert commands[-1] == "exec make test"


def test_package__holds_the_three_packages_and_their_data_by_name() -> None:
    import setuptools

    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = setuptools.find_packages(str(ROOT), include=include["packages"]["find"]["include"])
    assert {name.split(".")[0] for name in found} == set(PACKAGES)
    # A folder of modules without __init__.py would be left out of a built package.
    folders = {p.parent.relative_to(ROOT).as_posix() for k in PACKAGES for p in modules(k)}
    assert {folder.replace("/", ".") for folder in folders} == set(found)
    patterns = include["package-data"]["*"]
    data = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc", ".nbi", ".nbc"}
    ]
    left_out = [str(p) for p in data if not any(p.match(pattern) for pattern in patterns)]
    assert not left_out


def test_import_of_any_module__ends_no_process() -> None:
    # Doctests are looked for in all of them: one that exits ends the tests, with status 0.
    ends = {"_exit", "exit", "abort", "kill"}
    guilty = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for folder in (*PACKAGES, "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Expr | ast.For | ast.While | ast.With | ast.Try)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ends
    ]
    assert guilty == []
