"""Programs made of mmgraph's blocks; run them from a clone of the repository."""
