{{ bars('1d') }}
