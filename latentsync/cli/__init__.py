"""The commands of `latentsync`, one file each: `add_parser` declares the flags, `run` does the work."""
