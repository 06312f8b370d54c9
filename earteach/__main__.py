"""`python -m earteach`: the same as `earteach`."""

from earteach.cli.app import main

main()
