"""The papers' headline results, run with the zoo; each script prints its figures and draws its picture."""
