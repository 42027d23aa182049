"""The outside world as Arrow tables: one file per provider, one HTTP door for all of them."""
