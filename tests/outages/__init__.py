"""Outages as those live through them who call for tokens: issuer down, store down, both, for seconds and for hours."""
