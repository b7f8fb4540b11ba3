"""The text that --help prints."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from spml_tf.system.flag_fields import flag_fields, name_of


def help_text(options: type, usage: str, others: Sequence[tuple[str, str]]) -> str:
    """The usage of a command and its flags by headings.

    Args:
        options: dataclass of `flag_field`s.
        usage: the first lines.
        others: flags that all commands have, and what they do.
    """
    lines = [usage, ""]
    for heading, fields in _grouped(options).items():
        lines += ["", heading] if heading else []
        for field in fields:
            lines += _flag_help(field)
        if not heading:
            for name, text in others:
                lines += [f"  {name}", f"      {text}"]
    return "\n".join(lines)


def _grouped(options: type) -> dict[str, list[dataclasses.Field[Any]]]:
    """The flags by their headings; those without a heading come first."""
    declared_by = {
        name: base for base in reversed(options.__mro__) for name in inspect.get_annotations(base)
    }
    groups: dict[str, list[dataclasses.Field[Any]]] = {"": []}
    for field in flag_fields(options):
        group = field.metadata["group"]
        if group is None:
            group = vars(declared_by[field.name]).get("group", "")
        groups.setdefault(group, []).append(field)
    return groups


def _flag_help(field: dataclasses.Field[Any]) -> list[str]:
    choices = field.metadata["choices"]
    values = f"={'|'.join(choices)}" if choices else ""
    default = "" if field.default is None else f" (default: {field.default})"
    negated = "[no]" if field.metadata["kind"] is bool else ""
    return [f"  --{negated}{name_of(field)}{values}", f"      {field.metadata['help']}{default}"]
