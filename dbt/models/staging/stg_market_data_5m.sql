{{ bars('5m') }}
