"""Work on several machines with Ray. Nothing outside of this folder and the command line knows Ray."""
