"""What is timed: ours, and what it is compared with, each as a `Candidate`."""
