"""The tests: every server they need they start themselves."""
