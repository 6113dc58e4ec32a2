"""A job and its keeping: handles, pool, store, and a job as text."""
