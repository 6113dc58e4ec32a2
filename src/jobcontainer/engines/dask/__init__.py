"""The engine that runs jobs on the workers of a Dask cluster."""
