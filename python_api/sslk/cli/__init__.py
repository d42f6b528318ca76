"""The `sslk` command: one thin function per sub-command, which parses, calls, saves and prints."""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 when it failed, 2 for wrong usage."""
    from sslk.cli.app import run

    return run(argv)
