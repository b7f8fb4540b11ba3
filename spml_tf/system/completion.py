"""Completion of the commands' flags by a shell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_HEAD = """# Completes the flags of spml_tf's commands. In ~/.bashrc:
#   eval "$(python -m spml_tf --completion=bash)"
_spml_tf() {
    local line="${COMP_LINE:0:COMP_POINT}" flags="" values=""
    local word="${line##* }"
    local name="${word%%=*}"
    case "${COMP_WORDS[0]##*/}" in
"""
_TAIL = """    esac
    if [[ "$word" != *=* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
        [[ "${COMPREPLY[0]:-}" == *= ]] && compopt -o nospace 2>/dev/null
        return 0
    fi
    # Where = ends no word, as some have set it, the flag is part of what is completed.
    [[ "$COMP_WORDBREAKS" == *=* ]] && name="" || name="$name="
    if [[ -n "$values" ]]; then
        COMPREPLY=($(compgen -P "$name" -W "$values" -- "${word#*=}"))
    else
        COMPREPLY=($(compgen -P "$name" -f -- "${word#*=}"))
    fi
    return 0
}
"""

_SWITCHES = ("debug", "version")  # those of all commands, which have no [no]


def bash(helps: Mapping[str, str], values: Mapping[str, Iterable[str]]) -> str:
    """A script that completes flags, their values and names of files.

    Args:
        helps: what --help of the commands prints, by the commands' names.
        values: words that flags take whose help does not list them, by the flags' names.

    Returns:
        The text, to be evaluated by bash.
    """
    lines = []
    for command, text in helps.items():
        found = re.findall(r"^  --(\[no\])?(\w+)(?:=(\S+))?$", text, re.M)
        flags = [
            f"--{name}{'' if switch or name in _SWITCHES else '='}" for switch, name, _ in found
        ]
        for words in re.findall(r"spml_tf\.\w+ (\w[\w|]*)", text):  # as in data check
            flags += words.split("|")
        lines.append(f'    {command}) flags="{" ".join(flags)}"')
        lines.append('        case "$name" in')
        for _, name, choices in found:
            words = choices.split("|") if choices else list(values.get(name, ()))
            if words:
                lines.append(f'        --{name}) values="{" ".join(words)}" ;;')
        lines.append("        esac ;;")
    return _HEAD + "\n".join(lines) + f"\n{_TAIL}complete -F _spml_tf {' '.join(helps)}\n"
