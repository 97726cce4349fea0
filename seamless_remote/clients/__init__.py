"""The clients of the services: what to ask, what the answers mean, and when to try again."""
