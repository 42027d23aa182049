"""The live half: Kafka's messages land in bronze, each exactly once, seconds behind the market."""
