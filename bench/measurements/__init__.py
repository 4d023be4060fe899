"""One module for each thing that `python -m bench` measures."""
