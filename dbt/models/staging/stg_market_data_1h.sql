{{ bars('1h') }}
