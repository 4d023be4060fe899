"""What an empty database starts with, and a generator for a large one."""
