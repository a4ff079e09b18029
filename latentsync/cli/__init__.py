"""The commands of `latentsync`, one file each. `add_parser` declares the flags of a command."""
