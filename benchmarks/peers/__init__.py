"""Those we compare with, behind one adapter each, and our own backends."""
