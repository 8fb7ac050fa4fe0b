"""The reference table: every strategy on the problems that it is for, tuned and with its defaults."""
