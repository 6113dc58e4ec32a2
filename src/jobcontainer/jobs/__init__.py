"""Handles, pool and store: what a user holds of jobs."""
