"""The benchmark runs in an environment of its own (`make bench`): nothing here is a test."""
collect_ignore = ["models.py", "run.py"]
