"""Cut one function out of a notebook's cells, with what it uses. Runs inside the child; standard library only.

Only the text of code cells is read, so lost ids, lost metadata and stored outputs do no harm. Each cell is parsed by
itself: a broken cell costs only what it defines. With the function come the statements that define or change what it
uses, loops too, in their order, so that the last definition wins as in the notebook; all others are left out, so a
training run is not repeated.
"""
import ast
import builtins
import symtable
import sys
from dataclasses import dataclass

from .ipython import parse

# Methods that change their object; so do torch's, whose names end with _
IN_PLACE = set("add append appendleft clear discard extend insert pop popitem remove reverse setdefault sort "
               "update".split())


class Refused(Exception):
    """A reason, one of the few that the grader knows, why there are no values."""


def executed(statement: ast.stmt) -> list[ast.AST]:
    """The nodes that run with a statement: not the bodies of the functions that it defines."""
    nodes: list[ast.AST] = [statement]
    for node in nodes:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            nodes += ast.iter_child_nodes(node)
    return nodes


def root(node: ast.AST) -> set[str]:
    """The variable that `a`, `a[0]`, `a.x`, `a[0].x()` begin with."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def touched(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Variables that a statement changes (`a[0] = 1`, `a.x = 1`, `a.append(1)`, `setattr(a, "x", 1)`), and those that
    it may change: the arguments of a call whose value is not used, as in `shuffle(a)`, and the object of its method."""
    changes, given = set(), set()
    nodes = executed(statement)
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            changes |= root(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changes |= root(node.func) if node.func.attr in IN_PLACE or node.func.attr.endswith("_") else set()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = getattr(node.value.func, "id", "")
            arguments = [*node.value.args, *(keyword.value for keyword in node.value.keywords)]
            inside = set().union(*(root(a) for a in arguments if not isinstance(a, ast.Call)))
            if name in ("setattr", "delattr"):
                changes |= inside
            elif not hasattr(builtins, name):  # print changes nothing
                given |= inside | root(node.value.func)
    for node in nodes:  # in `for row in table: row[0] = 1` it is the table that changes
        if isinstance(node, ast.For) and root(node.target) & (changes | given):
            given |= root(node.iter)
    return changes, given


@dataclass
class Statement:
    """A statement at the top level of a cell and its names.

    Attributes:
        binds: Names that it binds: definitions, imports, assignments, also those of loops, `with`, `match` and `:=`.
        uses: Global names that it or the functions in it refer to.
        changes, given: Variables that it changes, or may change (see `touched`).
        data: Whether it binds variables: not a function, class or module.
    """

    cell: int
    node: ast.stmt
    binds: set[str]
    uses: set[str]
    changes: set[str]
    given: set[str]
    data: bool


def describe(cell: int, node: ast.stmt) -> Statement:
    """The names of a statement, as Python's own symbol table has them."""
    binds, uses = set(), set()
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        binds.add("*")
    tables = [symtable.symtable(ast.unparse(node), "cell", "exec")]
    for table in tables:
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table.get_type() == "module" or symbol.is_global():
                if symbol.is_assigned() or symbol.is_imported():
                    binds.add(symbol.get_name())
                if symbol.is_referenced():
                    uses.add(symbol.get_name())
    fixed = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))
    return Statement(cell, node, binds, uses, *touched(node), not fixed)


def extract(cells: list[tuple[int, str]], name: str) -> list[tuple[int, ast.stmt]]:
    """[(cell number, statement)] that define `name` and what it uses."""
    found, broken = [], False
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(20 * usual)  # a long sum is a deep tree
    for number, text in cells:
        statements = parse(text)
        broken = broken or statements is None
        for node in statements or []:
            try:
                found.append(describe(number, node))
            except (SyntaxError, ValueError, RecursionError):  # such as a `return` outside of a function
                broken = True
    sys.setrecursionlimit(usual)
    if not any(name in statement.binds for statement in found):
        raise Refused("broken" if broken else "missing")
    variables = set().union(*(statement.binds for statement in found if statement.data))
    needed, size, kept = {name, "*"}, 0, []
    while len(needed) != size:
        size = len(needed)
        kept = [s for s in found if (s.binds | s.changes | s.given & variables) & needed]
        needed |= set().union(*(statement.uses for statement in kept))
    return [(statement.cell, statement.node) for statement in kept]
