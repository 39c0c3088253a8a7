"""The mutants of a module: each is its text with one thing changed that a test ought to notice."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Mutant", "mutants_of"]

_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}
_PAIRS = [("<", "<="), (">", ">="), ("==", "!="), ("is", "is not"), ("in", "not in")]
_OTHER_SIGN = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_ARITHMETIC: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.Div(),
    ast.Div: ast.Mult(),
    ast.Mod: ast.Mult(),
    ast.FloorDiv: ast.Mult(),
    ast.BitOr: ast.BitAnd(),
    ast.BitAnd: ast.BitOr(),
    ast.LShift: ast.RShift(),
    ast.RShift: ast.LShift(),
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_ANOTHER_ERROR = "__import__('secretsource.errors').errors.SecretSourceError"
# What says something to a reader only: a hint, a name in __all__, an order in __slots__.
_FOR_READERS = {"hint", "__all__", "__slots__"}
_DATA = re.compile(r"[A-Za-z0-9_.:/?#-]{1,40}")  # a text that is compared or sent, and no prose


class Mutant(NamedTuple):
    """A module's text with one change. `lines`: those of the code that is changed. `number`: of the equal changes."""

    lines: range
    was: str
    now: str
    number: int
    text: str

    @property
    def key(self) -> str:
        """The change without its place, which moves whenever something else is written."""
        return f"{self.was}  →  {self.now}" + (f"  ({self.number})" if self.number > 1 else "")


def mutants_of(text: str) -> Iterator[Mutant]:
    """All mutants, in the order of the text; those that do not compile are left out."""
    source, seen = text.encode(), set[tuple[int, int, bytes]]()
    numbers = Counter[tuple[str, str]]()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, now in _changes(ast.parse(text)):
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        begin, end = starts[node.lineno - 1] + node.col_offset, starts[end_line - 1] + end_column
        # As many lines as before, so that everything else stays where it is.
        more = "\n" * (end_line - node.lineno - now.count("\n"))
        now = f"({now}{more})" if isinstance(node, ast.expr) else now + more
        changed = source[:begin] + now.encode() + source[end:]
        if (begin, end, now.encode()) in seen:
            continue
        seen.add((begin, end, now.encode()))
        try:
            compile(changed, "mutant", "exec")
        except (SyntaxError, ValueError):
            continue
        was, now = (" ".join(each.split())[:100] for each in (source[begin:end].decode(), now))
        numbers[was, now] += 1
        yield Mutant(range(node.lineno, end_line + 1), was, now, numbers[was, now], changed.decode())


_Node = ast.expr | ast.stmt | ast.excepthandler | ast.keyword


def _changes(tree: ast.AST) -> Iterator[tuple[_Node, str]]:
    """Nodes, each with what is written in its place."""
    for node in _visible(tree):
        if isinstance(node, ast.expr):
            for now in _of_expression(node):
                yield node, now
        elif isinstance(node, (ast.stmt, ast.excepthandler)):
            for part, now in _of_statement(node):
                yield part, now


def _visible(node: ast.AST) -> Iterator[ast.AST]:
    """Everything but types, prose and f-strings, whose parts have no place in Python 3.11."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.JoinedStr, ast.pattern)):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            if isinstance(child, ast.keyword) and child.arg in _FOR_READERS:
                continue
            if isinstance(child, ast.Assign) and {ast.unparse(target) for target in child.targets} & _FOR_READERS:
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            yield from _visible(child)


def _of_expression(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            signs = [_SIGNS[type(operator)] for operator in operators]
            for place, sign in enumerate(signs):
                others = [*signs[:place], _OTHER_SIGN[sign], *signs[place + 1 :]]
                rest = (f"{other} {ast.unparse(each)}" for other, each in zip(others, comparators, strict=True))
                yield " ".join([ast.unparse(left), *rest])
        case ast.BoolOp(op=operator, values=values):
            joint = " or " if isinstance(operator, ast.And) else " and "
            yield joint.join(f"({ast.unparse(value)})" for value in values)
            for left_out in values:
                yield ast.unparse(ast.BoolOp(operator, [value for value in values if value is not left_out]))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            yield ast.unparse(ast.IfExp(test, otherwise, body))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
            yield ast.unparse(ast.BinOp(left, _ARITHMETIC[type(operator)], right))
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield repr(value + 1)
            yield repr(value - 1)
        case ast.Constant(value=str(value)) if _DATA.fullmatch(value):
            yield repr(f"{value}XX")
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _NAMES:
            yield ast.unparse(ast.Call(ast.Name(_NAMES[name]), args, keywords))
        case ast.Call(func=function, args=args, keywords=keywords):
            for keyword in keywords:
                if keyword.arg not in _FOR_READERS:
                    yield ast.unparse(ast.Call(function, args, [each for each in keywords if each is not keyword]))


def _of_statement(node: ast.stmt | ast.excepthandler) -> Iterator[tuple[_Node, str]]:
    match node:
        case ast.If(test=test) | ast.While(test=test) if not _has_an_opposite(test):
            yield test, f"not ({ast.unparse(test)})"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Delete() | ast.Assert():
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript() | ast.Tuple()]):
            yield node, "pass"
        case ast.AugAssign(target=target, op=operator, value=value):
            yield node, "pass"
            if type(operator) in _ARITHMETIC:
                yield node, ast.unparse(ast.AugAssign(target, _ARITHMETIC[type(operator)], value))
        case ast.Raise(exc=error):
            yield node, "pass"
            if isinstance(error, ast.Call) and isinstance(error.func, ast.Name):
                name = error.func.id
                if name.endswith("Error") and not _ANOTHER_ERROR.endswith(name):
                    yield error.func, _ANOTHER_ERROR
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"
        case ast.ExceptHandler(type=ast.Tuple(elts=elements) as kinds):
            for left_out in elements:
                rest = ", ".join(ast.unparse(each) for each in elements if each is not left_out)
                yield kinds, f"({rest},)"
        case ast.ExceptHandler(type=ast.expr() as kind):
            yield kind, "ZeroDivisionError"
        case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
            for decorator in decorators:
                yield decorator, "lambda same: same"


def _has_an_opposite(test: ast.expr) -> bool:
    """Whether it is already said the other way round as an expression."""
    match test:
        case ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Is() | ast.IsNot() | ast.In() | ast.NotIn()]):
            return True
    return isinstance(test, ast.UnaryOp)
