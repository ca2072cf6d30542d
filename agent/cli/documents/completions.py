"""Completions for bash, zsh and fish: plain tables, so that a Tab starts no Python.

Each script walks the words before the cursor to the command that they name (`agent bpf trace`), and
offers that command's own words, or the values of the option before the cursor.
"""

from __future__ import annotations

import re

from agent.cli.documents.tree import CommandPage, Parameter

_HEAD = "Written from the commands themselves by `python -m agent.cli.documents`."


def completion_files(tree: CommandPage) -> dict[str, str]:
    """Path below a `share` directory → script."""
    return {
        "bash-completion/completions/agent": _bash(tree),
        "zsh/vendor-completions/_agent": _zsh(tree),
        "fish/vendor_completions.d/agent.fish": _fish(tree),
    }


def _routes(tree: CommandPage) -> list[str]:
    """Each command below `agent`, as its words."""
    return [" ".join(page.path) for page in tree.walk()[1:]]


def _words(page: CommandPage) -> list[str]:
    commands = [one.path[-1] for one in page.commands]
    return [*commands, *(word for one in page.options for word in one.words)]


def _valued(tree: CommandPage) -> list[tuple[str, Parameter]]:
    """(command and option, option) for each option that takes a value."""
    return [
        (f"{' '.join(page.path)}:{word}", one)
        for page in tree.walk()
        for one in page.options
        for word in one.words
        if one.metavar
    ]


def _bash(tree: CommandPage) -> str:
    routes = "|".join(_quoted(route) for route in _routes(tree))
    lines = [
        f"# bash completion for agent(1). {_HEAD}",
        "_so1_agent() {",
        "    local route=agent word before=${COMP_WORDS[COMP_CWORD - 1]} words=",
        "    local current=${COMP_WORDS[COMP_CWORD]}",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$route $word" in',
        f'            {routes}) route="$route $word" ;;',
        "        esac",
        "    done",
        "    # --option=value is three words to bash.",
        "    if [[ $current == = ]]; then",
        "        current=",
        "    elif [[ $before == = ]]; then",
        "        before=${COMP_WORDS[COMP_CWORD - 2]}",
        "    fi",
        "    COMPREPLY=()",
        '    case "$route:$before" in',
    ]
    for place, one in _valued(tree):
        lines.append(f"        {_quoted(place)})")
        if one.choices:
            words = _quoted(" ".join(one.choices))
            lines.append(f'            mapfile -t COMPREPLY < <(compgen -W {words} -- "$current")')
        elif one.takes_path:
            lines.append('            mapfile -t COMPREPLY < <(compgen -f -- "$current")')
            lines.append("            compopt -o filenames 2>/dev/null || :")
        lines += ["            return 0", "            ;;"]
    lines += ["    esac", '    case "$route" in']
    for page in tree.walk():
        words = _quoted(" ".join(_words(page)))
        lines.append(f"        {_quoted(' '.join(page.path))}) words={words} ;;")
    lines += [
        "    esac",
        '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
        "}",
        "complete -F _so1_agent agent",
    ]
    return "\n".join(lines) + "\n"


def _zsh(tree: CommandPage) -> str:
    lines = [
        "#compdef agent",
        f"# {_HEAD}",
        "local route=agent word",
        "local -a found",
        'for word in "${(@)words[2,CURRENT-1]}"; do',
        '    case "$route $word" in',
        f'        ({"|".join(_quoted(route) for route in _routes(tree))}) route="$route $word" ;;',
        "    esac",
        "done",
        'case "$route:${words[CURRENT-1]}" in',
    ]
    for place, one in _valued(tree):
        if one.choices:
            action = "compadd -- " + " ".join(_quoted(word) for word in one.choices)
        else:
            action = "_files" if one.takes_path else f"_message {_quoted(one.metavar)}"
        lines.append(f"    ({_quoted(place)}) {action}; return ;;")
    lines += ["esac", 'case "$route" in']
    for page in tree.walk():
        described = [(one.path[-1], one.summary) for one in page.commands]
        described += [(word, one.help) for one in page.options for word in one.words]
        entries = " ".join(_quoted(f"{word}:{about}") for word, about in described)
        lines.append(f"    ({_quoted(' '.join(page.path))}) found=({entries}) ;;")
    return "\n".join([*lines, "esac", "_describe agent found"]) + "\n"


def _fish(tree: CommandPage) -> str:
    lines = [
        f"# fish completion for agent(1). {_HEAD}",
        "function __so1_agent_is",
        "    set -l route agent",
        "    set -l words (commandline -opc)",
        "    for word in $words[2..-1]",
        '        switch "$route $word"',
        f"            case {' '.join(_quoted(route) for route in _routes(tree))}",
        '                set route "$route $word"',
        "        end",
        "    end",
        '    test "$route" = "$argv[1]"',
        "end",
        "complete -c agent -f",
    ]
    for page in tree.walk():
        where = _fish_quoted(f"__so1_agent_is '{' '.join(page.path)}'")
        begin = f"complete -c agent -n {where}"
        lines += [
            f"{begin} -a {below.path[-1]} -d {_fish_quoted(below.summary)}"
            for below in page.commands
        ]
        for one in page.options:
            words = " ".join(
                f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
                for word in one.words
            )
            value = ""
            if one.choices:
                value = f" -x -a {_fish_quoted(' '.join(one.choices))}"
            elif one.metavar:
                value = " -r -F" if one.takes_path else " -x"
            lines.append(f"{begin} {words}{value} -d {_fish_quoted(one.help)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """For bash and zsh: in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"
