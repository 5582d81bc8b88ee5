"""A finished run, loaded to be used."""
