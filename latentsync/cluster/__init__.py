"""Work on several machines with Ray. Only this folder and the command line use Ray."""
