"""Mutation testing of the modules that keep secrets and tokens: which changes of the code does no test notice?

    .venv/bin/python -m tests.mutation flight source            # these modules; without a name, all that are listed
    .venv/bin/python -m tests.mutation flight --again           # also those that have survived before

Each mutant meets the tests that run its lines, the quickest first, in a copy of the project below --scratch. What came
of it is kept there too, so that a run may be interrupted and gone on with, and only what has changed is done again.
Two at a time, at low priority; a module takes a few minutes. POSIX only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings

from .forking import in_forks
from .mutants import Mutant, mutants_of
from .plugins import KILLED, NOT_HERE, SURVIVED, TIMED_OUT, Chosen, InPlace, Noted

ROOT = Path(__file__).resolve().parents[2]
# Each with the test files that it is met by, below tests/.
MODULES = {
    "secret": "test_secret",
    "reference": "test_reference",
    "identity": "test_endpoint",
    "endpoint": "test_endpoint",
    "answer": "test_endpoint",
    "discovery": "test_discovery",
    "urls": "test_endpoint test_discovery auth/test_httpx",
    "exchange": "test_endpoint",
    "tls": "test_tls",
    "transport": "test_transport test_tls",
    "flight": "test_flight",
    "renewal": "test_source",
    "source": "test_source test_source_async test_config_sources",
    "rounds": "test_rounds",
    "circuit": "test_rounds test_fetch",
    "fetch": "test_fetch",
    "backends.access": "backends/test_access files/test_levels",
    "backends.walk": "backends/test_walk files/test_levels files/test_refusals files/test_reading files/test_mounts",
    "backends.file": "backends/test_walk files/test_levels files/test_reading files/test_writing",
}
SLOWEST = 2.0  # seconds; slower tests are left out
PATIENCE = 12.0  # seconds for a test, and over ten times what all take: a mutant may hang
AT_ONCE = 2
IN_ANOTHER_PROCESS = "for_an_ordinary_user"  # tests whose lines no trace sees: every mutant of their modules meets them
# What tests need, but nothing of ours: it is imported once, and whatever runs is a fork.
NEEDED = "asyncio hypothesis.strategies httpx httpx2 cachetools trio trustme pytest_timeout"
QUICKLY = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "pytest_timeout", f"--timeout={PATIENCE:.0f}"]
SAID = {SURVIVED: "survived", KILLED: "killed", TIMED_OUT: "killed by time-out", None: "killed by time-out"}


class Tests(NamedTuple):
    """The tests of some files: how long each takes, and which run which line of which module."""

    seconds: dict[str, float]
    lines: dict[tuple[str, int], set[str]]

    def of(self, file: str, mutant: Mutant) -> list[str]:
        """Those that run its lines, the quickest first; all of them where it runs at import."""
        found = set[str]().union(*(self.lines.get((file, line), set()) for line in mutant.lines))
        if found:
            found |= {test for test in self.seconds if IN_ANOTHER_PROCESS in test}
        return sorted(found or self.seconds, key=self.seconds.__getitem__)


class Project:
    """A copy of the project, in which a module may be another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "node_modules"))

    def path(self, module: str) -> Path:
        return self.folder / "secretsource" / f"{module.replace('.', '/')}.py"

    def put(self, module: str, text: str) -> None:
        path = self.path(module)
        path.write_text(text)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()  # it may be as old and as long to the second and the byte

    def pytest(self, arguments: list[str], plugin: object) -> int:
        """Its exit code. This process is then good for nothing else."""
        os.chdir(self.folder)
        os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        os.environ |= {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        sys.path[0] = str(self.folder)
        sys.modules.pop("tests", None)
        sys.dont_write_bytecode = not isinstance(plugin, Noted)
        return int(pytest.main([*QUICKLY, *arguments], plugins=[plugin]))


def learnt(project: Project, files: list[str]) -> Tests:
    """Run the tests twice: as they are, and with a note of each line."""
    notes: list[dict[str, Any]] = []
    for package in (None, project.folder / "secretsource"):
        path = project.folder / "notes.json"

        def run(files: list[str], _: None, path: Path = path, package: Path | None = package) -> int:
            return project.pytest(files, Noted(path, package))

        [(_, code)] = in_forks([files], [None], run, lambda _: 900)
        if code not in (0, 1):
            raise SystemExit(f"the tests cannot be run:\n{(project.folder / 'output').read_text()[-3000:]}")
        if code and package is None:
            print("Some tests fail without any change, and are left out.", flush=True)
        notes.append(json.loads(path.read_text()))
    plain, traced = notes
    seconds = {test: note["seconds"] for test, note in plain.items() if note["seconds"] < SLOWEST}
    lines: dict[tuple[str, int], set[str]] = {}
    for test, note in traced.items():
        for file, line in note["lines"] if test in seconds else ():
            lines.setdefault((file, line), set()).add(test)
    return Tests(seconds, lines)


def meet(module: str, mutants: list[Mutant], projects: list[Project], note: Callable[[Mutant, str], None]) -> None:
    """First in place, which is quick; in a copy of the project who cannot be met there, or not by all tests."""
    project = projects[0]
    names = [path for name in MODULES[module].split() for path in sorted((ROOT / "tests").glob(f"{name}.py"))]
    files = [str(path.relative_to(ROOT)) for path in names]
    tests, file, whole = learnt(project, files), str(project.path(module)), project.path(module).read_text()
    left_over = project.folder / "left-over"
    left_over.write_text("")

    def tests_of(mutant: Mutant) -> list[str]:
        return tests.of(file, mutant)

    def seconds(mutant: Mutant) -> float:
        return 2 * PATIENCE + 10 * sum(tests.seconds[test] for test in tests_of(mutant))

    # A program that a test starts has what is in the files.
    starts_programs = any("sys.executable" in path.read_text() for path in names)

    def met_in_place(mutant: Mutant, code: int | None) -> None:
        if code == NOT_HERE or (code == SURVIVED and starts_programs):
            with left_over.open("a") as out:
                out.write(f"{mutants.index(mutant)}\n")
        else:
            note(mutant, SAID.get(code, "killed"))

    def in_place(files: list[str], _: None) -> int:
        return project.pytest(files, InPlace(file, mutants, tests_of, seconds, met_in_place, AT_ONCE))

    def in_a_copy(mutant: Mutant, project: Project) -> int:
        project.put(module, mutant.text)
        chosen = tests_of(mutant)
        plugin = Chosen(chosen)
        code = project.pytest(["-x", *sorted({test.partition("::")[0] for test in chosen})], plugin)
        return TIMED_OUT if plugin.timed_out else SURVIVED if code == 0 else KILLED

    for _ in in_forks([files], [None], in_place, lambda _: 36_000):
        pass
    left = [mutants[int(line)] for line in left_over.read_text().split()]
    for mutant, code in in_forks(left, projects, in_a_copy, seconds):
        note(mutant, SAID.get(code, "killed"))
    for project in projects:
        project.put(module, whole)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "secretsource-mutation")
    parser.add_argument("--again", action="store_true", help="meet again what has survived before")
    given = parser.parse_args()
    os.nice(15)
    for name in NEEDED.split():
        import_module(name)
    # The first failure is enough.
    settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
    settings.load_profile("mutation")
    gc.freeze()  # else each fork would collect all that is imported here, several times
    results: Path = given.scratch / "results"
    results.mkdir(parents=True, exist_ok=True)
    projects = [Project(given.scratch / f"project-{number}") for number in range(AT_ONCE)]
    for module in given.modules or MODULES:
        path = results / f"{module}.jsonl"

        def note(mutant: Mutant, result: str, path: Path = path) -> None:
            with path.open("a") as out:
                out.write(json.dumps([mutant.key, result]) + "\n")

        known = _known(path)
        mutants = list(mutants_of(projects[0].path(module).read_text()))
        done = {key for key, result in known.items() if not (given.again and result == "survived")}
        due = [mutant for mutant in mutants if mutant.key not in done]
        if due:
            meet(module, due, projects, note)
        known = _known(path)
        said = [(mutant, known.get(mutant.key, "not run")) for mutant in mutants]
        for mutant, result in said:
            if not result.startswith("killed"):
                print(f"{result}: secretsource/{module.replace('.', '/')}.py:{mutant.lines.start}: {mutant.key}")
        print(f"{module}: {len(mutants)} mutants, {dict(Counter(result for _, result in said))}", flush=True)


def _known(path: Path) -> dict[str, str]:
    return dict(json.loads(line) for line in path.read_text().splitlines()) if path.exists() else {}


if __name__ == "__main__":
    main()
