"""Buffers: reading from folders, downloading, decoding, hashing and verifying."""
