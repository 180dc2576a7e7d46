"""The building blocks that several models share, one concept a file."""
