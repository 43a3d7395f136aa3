"""The Dask task runner. Nothing here is loaded before it is used."""
