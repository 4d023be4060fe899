"""The real servers behind `make run`, the tests and the benchmark."""
