"""The command line: one file per command, each three moves: import the core, call it, show it."""
