"""The shape of the code, held by reading it: who imports whom, and how long functions are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
LONGEST = 70  # lines of a function

PURE = [
    "sim.errors", "sim.document", "sim.shape", "sim.scenario", "sim.vocabulary", "sim.config", "sim.schema", "sim.load",
    "sim.planned", "sim.plan", "sim.events", "sim.expect", "sim.check", "sim.report", "sim.grammar", "sim.track",
    "sim.show", "sim.history", "sim.resolver", "sim.faults.calls", "sim.faults.order", "sim.struck", "sim.trials",
    "sim.conform.values",
]  # fmt: skip
ACTING = [
    "sim.world", "sim.run", "sim.steps", "sim.mischief", "sim.session", "sim.probe", "sim.observe", "sim.parallel",
    "sim.outage", "sim.guarded",
    "sim.faults.filter", "sim.faults.supervisor", "sim.crash", "sim.cli",
]  # fmt: skip
PRIVILEGED = {"unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "sethostname"}


def parse_tree(package: str) -> dict[str, ast.Module]:
    """Every module of a package of this checkout: dotted name -> syntax tree."""
    found = {}
    for path in sorted((TOP / package).rglob("*.py")):
        parts = path.relative_to(TOP).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


MODULES = parse_tree("sim") | parse_tree("snapcore")


def imported(module: str, *, lazy: bool = True) -> set[str]:
    """What a module imports, dotted; `lazy=False`: only what importing it imports at once."""
    nodes = ast.walk(MODULES[module]) if lazy else at_once(MODULES[module].body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: line {node.lineno}: relative import"
            base = node.module or ""
            # `from a import b`: the module a.b where there is one, else a
            names.update(f"{base}.{x.name}" if f"{base}.{x.name}" in MODULES else base for x in node.names)
    return names - {module}


def at_once(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes that run on import: no function bodies, no `if TYPE_CHECKING:`."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from at_once(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from at_once(handler.body)


def below(name: str, packages: list[str]) -> bool:
    """Whether a dotted name is one of `packages` or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def reached_from(module: str) -> dict[str, list[str]]:
    """Every module of this checkout that importing `module` imports, with the chain that leads to it."""
    chains = {module: [module]}
    waiting = [module]
    while waiting:
        here = waiting.pop()
        direct = imported(here, lazy=False)
        packages = {name[:dot] for name in direct for dot, letter in enumerate(name) if letter == "."}
        for name in direct | packages:
            if name in MODULES and name not in chains:
                chains[name] = [*chains[here], name]
                waiting.append(name)
    return chains


def test_snapcore_never_imports_sim() -> None:
    guilty = {m: imported(m) for m in MODULES if below(m, ["snapcore"]) and any(below(n, ["sim"]) for n in imported(m))}
    assert not guilty


def test_snapcore_needs_the_standard_library_alone() -> None:
    for module in MODULES:
        if below(module, ["snapcore"]):
            # _sha2 is of Python 3.12 and newer; an older one that runs this test does not know its name
            allowed = sys.stdlib_module_names | {"snapcore", "_sha2"}
            allowed |= {"pyroute2"} if module == "snapcore.kernel" else set()
            assert {name.split(".")[0] for name in imported(module)} <= allowed, module


@pytest.mark.parametrize("module", [name for name in MODULES if below(name, PURE)])
def test_a_pure_module_never_reaches_one_that_acts(module: str) -> None:
    # at any depth, and not even lazily in the module itself: plan may render by a stack, whose programs act later
    chains = [" -> ".join(chain) for name, chain in reached_from(module).items() if below(name, ACTING)]
    assert not chains
    assert not [name for name in imported(module) if below(name, ACTING)]


def test_no_import_cycles() -> None:
    # a package's __init__ may be imported by what lies in it; that is Python's own doing and no cycle of ours
    done: set[str] = set()

    def visit(module: str, chain: list[str]) -> None:
        assert module not in chain, " -> ".join([*chain[chain.index(module) :], module])
        if module not in done:
            for name in imported(module, lazy=False):
                if name in MODULES:
                    visit(name, [*chain, module])
            done.add(module)

    for module in MODULES:
        visit(module, [])


def test_every_function_fits_a_screen() -> None:
    long = [
        f"{module}.{node.name}: {lines} lines"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST
    ]
    assert not long


def test_only_the_world_makes_namespaces_and_mounts() -> None:
    # by name, of whatever object: os.unshare, libc.mount, world.syscalls.mount, …
    guilty = [
        f"{module}: line {node.lineno}: {node.func.attr}()"
        for module, tree in MODULES.items()
        if not below(module, ["sim.world"])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PRIVILEGED
    ]
    assert not guilty
