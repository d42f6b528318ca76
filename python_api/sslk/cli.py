"""The `sslk` command. Every sub-command is a typed Python function; its options and help come from its signature.

The functions are imported only when they run, so that `sslk --help` and `sslk --version` start at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys

# verb -> (module:function, one line of help)
COMMANDS = {
    "demo": ("sslk.demo:run", "Q-Score end to end on the embedded images and encoder, with a page of pictures"),
}


def _usage() -> str:
    lines = ["usage: sslk [--version] [--help] COMMAND [options]", "", "commands:"]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [*lines, "", "`sslk COMMAND --help` explains a command's options; --config FILE reads them from YAML."]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 when it failed, 2 for wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from ssl_kernels.version import __version__

        print(f"sslk {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS)
        print(f"sslk: unknown command {name!r}" + (f", did you mean {near[0]!r}?" if near else "") + f"\n{_usage()}",
              file=sys.stderr)  # fmt: skip
        return 2
    from jsonargparse import auto_cli

    module, _, function = COMMANDS[name][0].partition(":")
    target = getattr(importlib.import_module(module), function)
    try:
        auto_cli(target, args=arguments[1:], prog=f"sslk {name}", as_positional=False)
    except KeyboardInterrupt:
        print("sslk: interrupted", file=sys.stderr)
        return 1
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"sslk {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
