"""Servers that we did not write, and what the token request does at each of them."""
