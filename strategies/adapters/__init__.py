"""Other libraries' strategies behind the zoo's interface, so that one `benchmark` compares them with the zoo's own."""
