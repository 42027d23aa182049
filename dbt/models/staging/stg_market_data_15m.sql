{{ bars('15m') }}
