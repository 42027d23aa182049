"""Finding what is lost or damaged, and getting it back."""
