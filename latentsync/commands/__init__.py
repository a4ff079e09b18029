"""The commands of `python -m latentsync`, one file each: `add_parser` declares it, its flags set what runs."""
