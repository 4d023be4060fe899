"""Functions of app.py as Lambda runs them: in a warm container, events queued and tried again."""
