"""CloudWatch's metric math: expressions over metrics, without handing anything to `eval`."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from localaws.monitoring.metrics import Grid, MetricError, MetricKey, Metrics, Series

Value: TypeAlias = "float | Series | list[Series]"
"""A number, a time series, or an array of time series."""


@dataclass(frozen=True)
class Query:
    """A metric's statistic, or an expression over other queries."""

    id: str
    key: MetricKey | None = None
    statistic: str = ""
    period: float | None = None
    unit: str | None = None
    expression: str | None = None

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> "Query":
        """The query that CloudWatch's requests describe as a MetricDataQuery."""
        if told := query.get("MetricStat"):
            key = MetricKey.of(told["Metric"])
            return cls(query["Id"], key, told["Stat"], told.get("Period"), told.get("Unit"))
        return cls(query["Id"], period=query.get("Period"), expression=query.get("Expression"))


Queries: TypeAlias = Mapping[str, Query]


def period(queries: Queries, wanted: str) -> float:
    """Seconds of the periods for which a query has values.

    Raises:
        MetricError: Neither it nor a metric says.
    """
    periods = [found for query in queries.values() if query.key and (found := query.period)]
    if own := queries[wanted].period:
        return own
    if not periods:
        raise MetricError(f"the query {wanted} has no Period, and no metric beside it has one")
    return max(periods)


def solve(metrics: Metrics, queries: Queries, wanted: str, grid: Grid) -> Series:
    """The values of a query.

    Args:
        metrics: What was recorded.
        queries: All queries by id.
        wanted: The id of the one.
        grid: The periods.

    Raises:
        MetricError: An expression is not understood, or gives several time series.
    """
    value = _Solver(metrics, queries, grid).query(wanted)
    if isinstance(value, list):
        if len(value) != 1:
            raise MetricError(f"{queries[wanted].expression} gives {len(value)} time series, not 1")
        return value[0]
    if isinstance(value, tuple):
        return value
    return (value if math.isfinite(value) else None,) * grid.count


class _Solver:
    def __init__(self, metrics: Metrics, queries: Queries, grid: Grid) -> None:
        self._metrics, self._queries, self._grid = metrics, queries, grid
        self._open: set[str] = set()

    def query(self, name: str) -> Value:
        query = self._queries.get(name)
        if query is None:
            raise MetricError(f"no query has the id {name}")
        if query.key:
            return self._metrics.series(query.key, self._grid, query.statistic, query.unit)
        if name in self._open:
            raise MetricError(f"the expression of {name} refers to itself")
        self._open.add(name)
        value = self._evaluate(_parsed(query.expression or ""))
        self._open.remove(name)
        return value

    def _evaluate(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=bool() | str()):
                pass
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return self.query(name)
            case ast.List(elts=elements):
                return [one for element in elements for one in self._array(element)]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _each(operator.neg, self._evaluate(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _each(_OPERATORS[type(op)], self._evaluate(left), self._evaluate(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return _each(_OPERATORS[type(op)], self._evaluate(left), self._evaluate(right))
            case ast.BoolOp(op=op, values=[first, *others]):
                value = self._evaluate(first)
                for other in others:
                    value = _each(_OPERATORS[type(op)], value, self._evaluate(other))
                return value
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(name.upper(), arguments)
        raise MetricError(f"localaws does not understand {ast.unparse(node)} in metric math")

    def _array(self, node: ast.expr) -> list[Series]:
        value = self._evaluate(node)
        if isinstance(value, list):
            return value
        return [value if isinstance(value, tuple) else (value,) * self._grid.count]

    def _call(self, name: str, arguments: list[ast.expr]) -> Value:
        match name, arguments:
            case "METRICS", []:
                return self._all("")
            case "METRICS", [ast.Constant(value=str(part))]:
                return self._all(part)
            case "FILL", [metric, ast.Name(id="REPEAT")]:
                repeated = [_repeated(series) for series in self._array(metric)]
                return repeated if isinstance(self._evaluate(metric), list) else repeated[0]
            case "FILL", [metric, filler]:
                return _each(_first, *map(self._evaluate, (metric, filler)), missing=True)
            case "IF", [condition, *branches] if len(branches) in (1, 2):
                chosen = [self._evaluate(branch) for branch in branches]
                return _each(_choose, self._evaluate(condition), *chosen, missing=True)
            case (("AVG" | "MAX" | "MIN" | "SUM"), [metric]):
                return _aggregated(_AGGREGATES[name], self._evaluate(metric))
            case (("ABS" | "CEIL" | "FLOOR"), [metric]):
                return _each(_FUNCTIONS[name], self._evaluate(metric))
            case "PERIOD", [_]:
                return self._grid.period
        raise MetricError(f"localaws does not know {name} with {len(arguments)} arguments")

    def _all(self, part: str) -> list[Series]:
        chosen = [query for query in self._queries.values() if query.key and part in query.id]
        return [series for query in chosen if isinstance(series := self.query(query.id), tuple)]


def _parsed(expression: str) -> ast.expr:
    # As Python writes them; strings, which stand for parts of ids, hold none of these.
    for pattern, python in ((r"\bAND\b|&&", " and "), (r"\bOR\b|\|\|", " or "), (r"\^", "**")):
        expression = re.sub(pattern, python, expression)
    try:
        return ast.parse(f"({expression})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise MetricError(f"localaws does not understand {expression!r} as metric math") from error


def _each(function: Callable[..., Any], *operands: Value, missing: bool = False) -> Value:
    """A function of numbers, applied period by period.

    Args:
        function: What divides by zero and the like has no value.
        operands: Numbers stand for all periods; arrays are taken series by series.
        missing: Whether the function takes None, too; otherwise what lacks a value has none.
    """
    arrays = [operand for operand in operands if isinstance(operand, list)]
    if arrays:
        sizes = {len(array) for array in arrays}
        if len(sizes) > 1:
            raise MetricError("arrays of different lengths cannot be combined")
        rows = [operand if isinstance(operand, list) else None for operand in operands]
        combined = [
            _each(
                function,
                *(row[n] if row else whole for row, whole in zip(rows, operands, strict=True)),
                missing=missing,
            )
            for n in range(sizes.pop())
        ]
        return [series for series in combined if isinstance(series, tuple)]
    lengths = {len(operand) for operand in operands if isinstance(operand, tuple)}

    def one(*numbers: float | None) -> float | None:
        if not missing and None in numbers:
            return None
        try:
            result = function(*numbers)
            return None if result is None or not math.isfinite(result) else float(result)
        # A power may be no real number.
        except (ArithmeticError, ValueError, TypeError):
            return None

    if not lengths:
        value = one(*operands)  # type: ignore[arg-type]
        return math.nan if value is None else value
    columns = [
        operand if isinstance(operand, tuple) else (operand,) * max(lengths) for operand in operands
    ]
    return tuple(one(*numbers) for numbers in zip(*columns, strict=True))


def _aggregated(function: Callable[[list[float]], float], value: Value) -> Value:
    """Of an array: a series over its series. Of a series: a number over its periods."""
    if isinstance(value, list):
        columns = [[v for v in column if v is not None] for column in zip(*value, strict=True)]
        return tuple(function(column) if column else None for column in columns)
    if isinstance(value, tuple):
        present = [v for v in value if v is not None]
        return function(present) if present else (None,) * len(value)
    return value


def _repeated(series: Series) -> Series:
    last, filled = None, []
    for value in series:
        last = last if value is None else value
        filled.append(last)
    return tuple(filled)


def _first(value: float | None, filler: float | None) -> float | None:
    return filler if value is None else value


def _choose(
    condition: float | None, chosen: float | None, other: float | None = None
) -> float | None:
    if condition is None:
        return None
    return chosen if condition else other


_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.And: lambda a, b: bool(a) and bool(b),
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Mult: operator.mul,
    ast.NotEq: operator.ne,
    ast.Or: lambda a, b: bool(a) or bool(b),
    ast.Pow: operator.pow,
    ast.Sub: operator.sub,
}
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "AVG": lambda values: sum(values) / len(values),
    "MAX": max,
    "MIN": min,
    "SUM": sum,
}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ABS": abs,
    "CEIL": math.ceil,
    "FLOOR": math.floor,
}
