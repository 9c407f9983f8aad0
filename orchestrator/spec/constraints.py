"""Parse and evaluate conditions such as `optimizer.learning_rate * schedule.epochs <= 1e-4`.

The grammar is a subset of Python expressions: numbers, strings, names of settings, + - * /,
comparisons, `and`, `or`, `not` and parentheses. Everything else is rejected. Conditions are parsed
with Python's `ast` module.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}


@dataclass(frozen=True)
class Constraint:
    """A parsed condition and the settings that it names."""

    text: str
    names: frozenset[str]
    tree: ast.expr

    def holds(self, searched: Mapping[str, Any]) -> bool:
        """Return whether the values meet the condition; False if it divides by zero.

        Raises:
            TypeError: a value such as null does not support arithmetic or ordering.
        """
        try:
            return bool(_value(self.tree, searched))
        except ZeroDivisionError:
            return False


def read_constraint(text: str) -> Constraint:
    """Parse a condition.

    Raises:
        ValueError: `text` is not a condition; the message continues after the prefix
            "search.constraints: TEXT".
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("is not a valid expression") from None
    while isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        tree = tree.operand
    if not isinstance(tree, (ast.Compare, ast.BoolOp)):
        raise ValueError("must be a comparison with <, <=, >, >=, == or !=")
    whole = ast.parse(text.strip(), mode="eval").body
    return Constraint(text, frozenset(_names(whole)), whole)


def all_hold(constraints: Sequence[Constraint], searched: Mapping[str, Any]) -> bool:
    """Return whether the values meet every condition."""
    return all(constraint.holds(searched) for constraint in constraints)


def _names(node: ast.expr) -> list[str]:
    """Return the settings that an expression names.

    Raises:
        ValueError: the syntax is not supported.
    """
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return []
        case ast.Name() | ast.Attribute():
            return [_dotted(node)]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _names(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return [*_names(left), *_names(right)]
        case ast.BoolOp(values=values):
            return [name for value in values for name in _names(value)]
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(
            type(op) in _COMPARISONS for op in ops
        ):
            return [name for part in (left, *rest) for name in _names(part)]
    raise ValueError(f"supports + - * /, comparisons, and, or, not; got {_format(node)}")


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=parent, attr=name):
            return f"{_dotted(parent)}.{name}"
    raise ValueError(f"{_format(node)} is not the name of a setting")


def _format(node: ast.expr) -> str:
    return f"`{ast.unparse(node)}`"


def _value(node: ast.expr, searched: Mapping[str, Any]) -> Any:  # noqa: PLR0911 (one return per node type)
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            return searched[_dotted(node)]
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, searched))
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_value(left, searched), _value(right, searched))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(value, searched) for value in values)
        case ast.BoolOp(values=values):
            return any(_value(value, searched) for value in values)
        case ast.Compare(left=left, ops=ops, comparators=rest):
            sides = [_value(part, searched) for part in (left, *rest)]
            pairs = zip(ops, pairwise(sides), strict=True)
            return all(_COMPARISONS[type(op)](one, other) for op, (one, other) in pairs)
    raise AssertionError(f"{_format(node)} passed _names")
