"""Launching: launch dict in, address out."""
