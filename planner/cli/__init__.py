"""The command line: parse, make one library call, format. One file per command, loaded when it is called."""

from .main import main

__all__ = ["main"]
