{{ bars('4h') }}
