"""What is worth knowing of a run, and changes nothing."""
