"""Plans made in tests, without a file."""

from __future__ import annotations

from spml_tf.plans.plan import Plan, Row


def row(name: str, method: str = "en", after: str | None = None, **others) -> Row:
    grid = others.pop("grid", {})
    return Row(name, method, {k: str(v) for k, v in others.items()}, None, after, grid)


def plan_of(*rows: Row, seeds=(0,), vary="", values=(), search=None, ends=(None, None)) -> Plan:
    return Plan("Title", "", tuple(seeds), rows, *ends, vary, tuple(values), search)
