"""MMSR, a recommender over several modalities, from data folders to recommendations."""
