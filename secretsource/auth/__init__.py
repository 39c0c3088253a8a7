"""A token on a request: one module for each HTTP client."""
