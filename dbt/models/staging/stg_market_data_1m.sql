{{ bars('1m') }}
