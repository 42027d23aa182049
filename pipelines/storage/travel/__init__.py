"""Tables as they were: history, moments, snapshots, differences."""
