"""What the make targets do, each in a module that has the target's name."""
