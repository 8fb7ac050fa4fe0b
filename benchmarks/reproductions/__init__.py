"""Reproductions of the papers' headline results. Each script prints its tables and draws its figure."""
