"""Data sets rewritten as shards, and shards that are read from a URL."""
