"""The Ray task runner. Nothing here is loaded before it is used."""
