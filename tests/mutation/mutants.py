"""Small changes of a module's source that its tests should notice.

A mutant is one change of one node: a comparison turned round or moved by one, a
branch never or always taken, a refusal left out, a bound off by one. Texts of
errors, annotations and log lines are left alone: nobody's safety hangs on them.
Bounds inside ``Annotated[..., Field(...)]`` and constants of a module are changed
too, which the known tools leave out; Cairn's rules stand there.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Alternatives = Iterator[tuple[str, ast.AST]]

_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt,
    ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_EDGE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
_OTHER: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
_COUNTERPART = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOGGERS = {"LOG", "logging", "super"}


@dataclass(frozen=True, order=True)
class Mutant:
    """One change, named so that it can be made again.

    Attributes:
        line: where it is, from 1.
        operator: what kind of change.
        text: the line as it stands, without indentation.
        number: which of the module's changes, in the order of ``mutants_of``.
    """

    line: int
    operator: str
    text: str
    number: int


@dataclass(frozen=True)
class _Place:
    """Where a node hangs: ``parent.field`` or ``parent.field[index]``."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST

    def put(self, other: ast.AST) -> None:
        ast.copy_location(other, self.node)
        if self.index is None:
            setattr(self.parent, self.field, other)
        else:
            getattr(self.parent, self.field)[self.index] = other


def mutants_of(source: str) -> list[Mutant]:
    """List every change of a module's source, in the order of its nodes."""
    lines = source.splitlines()
    changes = _changes(ast.parse(source))
    return [
        Mutant(place.node.lineno, operator, lines[place.node.lineno - 1].strip(), number)  # type: ignore[attr-defined]
        for number, (place, operator, _) in enumerate(changes)
    ]


def mutate(source: str, mutant: Mutant) -> str:
    """Make one change.

    Raises:
        LookupError: the source has no such change.
    """
    tree = ast.parse(source)
    for number, (place, operator, other) in enumerate(_changes(tree)):
        if number == mutant.number and operator == mutant.operator:
            place.put(other)
            return ast.unparse(ast.fix_missing_locations(tree))
    raise LookupError(f"no change {mutant}")


def _changes(tree: ast.Module) -> Iterator[tuple[_Place, str, ast.AST]]:
    for place in list(_places(tree)):
        for operator, other in _alternatives(place.node):
            yield place, operator, other


def _places(parent: ast.AST) -> Iterator[_Place]:
    """Every node that may be changed below a node, outer ones first."""
    for field, value in ast.iter_fields(parent):
        if field in _left_alone(parent):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, node in children:
            if isinstance(node, ast.AST) and not _is_text(node):
                yield _Place(parent, field, index, node)
                yield from _places(node)


def _left_alone(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Raise):
        return ("exc", "cause")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ("decorator_list", "returns", *(("body",) if node.name == "__repr__" else ()))
    if isinstance(node, ast.ClassDef):
        return ("decorator_list", "bases", "keywords")
    if isinstance(node, ast.arg):
        return ("annotation",)
    if isinstance(node, ast.AnnAssign) and not _has_bounds(node.annotation):
        return ("annotation",)
    if isinstance(node, ast.Call) and _is_message(node):
        return ("args", "keywords")
    return ()


def _has_bounds(annotation: ast.expr) -> bool:
    calls = (node.func for node in ast.walk(annotation) if isinstance(node, ast.Call))
    return any(isinstance(call, ast.Name) and call.id == "Field" for call in calls)


def _is_message(call: ast.Call) -> bool:
    name = _name(call.func)
    return name.endswith("Error") or name.startswith(("_refus", "_broken", "_not_", "warn"))


def _is_text(node: ast.AST) -> bool:
    """A text, or a statement that is one or that only tells people something."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) or node.value is None or node.value is Ellipsis
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return _root(node.value) in _LOGGERS
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else ""


def _alternatives(node: ast.AST) -> Alternatives:
    for kind, change in _OPERATORS:
        if isinstance(node, kind):
            yield from change(node)


def _refusal(node: ast.Raise) -> Alternatives:
    yield "refusal left out", ast.Pass()


def _statement(node: ast.Expr) -> Alternatives:
    if isinstance(node.value, ast.Call):
        yield "call left out", ast.Pass()


def _jump(node: ast.AST) -> Alternatives:
    yield "jump left out", ast.Pass()


def _branch(node: ast.If) -> Alternatives:
    guard = not node.orelse and isinstance(node.body[-1], ast.Raise)
    for value in (False,) if guard else (False, True):
        yield (
            f"branch {'always' if value else 'never'} taken",
            _with(node, test=ast.copy_location(ast.Constant(value), node.test)),
        )


def _choice(node: ast.IfExp) -> Alternatives:
    yield "choice turned round", _with(node, body=node.orelse, orelse=node.body)


def _comparison(node: ast.Compare) -> Alternatives:
    for index, sign in enumerate(node.ops):
        for name, table in (("comparison turned round", _OPPOSITE), ("edge moved", _EDGE)):
            if type(sign) in table:
                signs = list(node.ops)
                signs[index] = table[type(sign)]()
                yield name, _with(node, ops=signs)


def _condition(node: ast.BoolOp) -> Alternatives:
    yield "and for or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    for index in range(len(node.values)):
        rest = [value for at, value in enumerate(node.values) if at != index]
        yield "condition left out", rest[0] if len(rest) == 1 else _with(node, values=rest)


def _sign(node: ast.UnaryOp) -> Alternatives:
    if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield "sign left out", node.operand


def _arithmetic(node: ast.BinOp) -> Alternatives:
    texts = any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in (node.left, node.right)
    )
    if type(node.op) in _OTHER and not texts:
        yield "arithmetic", _with(node, op=_OTHER[type(node.op)]())


def _increment(node: ast.AugAssign) -> Alternatives:
    if type(node.op) in _OTHER:
        yield "arithmetic", _with(node, op=_OTHER[type(node.op)]())


def _constant(node: ast.Constant) -> Alternatives:
    value = node.value
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "constant one more", ast.Constant(value + 1)
        if value:
            yield "constant one less", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "constant doubled", ast.Constant(value * 2 or 1.0)
    elif isinstance(value, bytes) and value:
        yield "other bytes", ast.Constant(value[:-1] + bytes([value[-1] ^ 1]))


def _call(node: ast.Call) -> Alternatives:
    if isinstance(node.func, ast.Name) and node.func.id in _COUNTERPART:
        name = ast.copy_location(ast.Name(_COUNTERPART[node.func.id], ast.Load()), node.func)
        yield "counterpart called", _with(node, func=name)
    if _name(node.func) == "Field":
        for keyword in node.keywords:
            if keyword.arg == "pattern":
                rest = [other for other in node.keywords if other is not keyword]
                yield "pattern left out", _with(node, keywords=rest)


def _result(node: ast.Return) -> Alternatives:
    if isinstance(node.value, ast.Compare | ast.BoolOp):
        yield "always true", _with(node, value=ast.copy_location(ast.Constant(True), node.value))


_OPERATORS: tuple[tuple[type[ast.AST], Callable[..., Alternatives]], ...] = (
    (ast.Raise, _refusal), (ast.Expr, _statement), (ast.Continue, _jump), (ast.Break, _jump),
    (ast.If, _branch), (ast.IfExp, _choice), (ast.Compare, _comparison), (ast.BoolOp, _condition),
    (ast.UnaryOp, _sign), (ast.BinOp, _arithmetic), (ast.AugAssign, _increment),
    (ast.Constant, _constant), (ast.Call, _call), (ast.Return, _result),
)  # fmt: skip


def _with(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
