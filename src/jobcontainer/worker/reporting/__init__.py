"""What a job says while it runs: log, progress, displays."""
