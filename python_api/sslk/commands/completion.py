"""Shell completion of the `sslk` command."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh"]) -> None:
    """Print a script that completes the commands and options of sslk in a shell.

    Examples:
        $ sslk completion bash

    Args:
        shell: bash or zsh; put `eval "$(sslk completion bash)"` into its start-up file.
    """
    from sslk.cli import COMMANDS
    from sslk.command_source import read_command

    names = sorted({*COMMANDS, *(name.split()[0] for name in COMMANDS)})
    cases = []
    for name, command in COMMANDS.items():
        options = [option.flag for option in read_command(command.target).options]
        cases.append(f'    "{name}") words="{" ".join(options)} --config --print_config --verbose --help" ;;')
    first = " ".join(sorted({name.split()[0] for name in names}))
    groups: dict[str, list[str]] = {}
    for name in COMMANDS:
        if " " in name:
            groups.setdefault(name.split()[0], []).append(name.split()[1])
    seconds = [f'    {group}) words="{" ".join(members)}" ;;' for group, members in groups.items()]
    lines = [
        *(["autoload -U +X bashcompinit && bashcompinit"] if shell == "zsh" else []),
        "_sslk() {",
        '  local current="${COMP_WORDS[COMP_CWORD]}" words=""',
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    words="{first} --help --version --verbose"',
        '  elif [ "$COMP_CWORD" -eq 2 ]; then',
        '    case "${COMP_WORDS[1]}" in',
        *(f"  {line}" for line in seconds),
        "    esac",
        "  fi",
        '  if [ -z "$words" ]; then',
        '  case "${COMP_WORDS[1]} ${COMP_WORDS[2]}" in',
        *(line for line in cases if " " in line.partition('"')[2].partition('"')[0]),
        "  esac",
        "  fi",
        '  if [ -z "$words" ]; then',
        '  case "${COMP_WORDS[1]}" in',
        *(line for line in cases if " " not in line.partition('"')[2].partition('"')[0]),
        "  esac",
        "  fi",
        '  case "$current" in',
        '    -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;',
        '    *) COMPREPLY=($(compgen -W "$words" -f -- "$current")) ;;',
        "  esac",
        "}",
        "complete -o filenames -F _sslk sslk",
    ]
    print("\n".join(lines))
