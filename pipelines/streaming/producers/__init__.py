"""What writes to Kafka: a replay of what is known, and the providers' newest bars."""
