"""What the activation modules share: registered clients, the set in effect, and its keepalive."""
