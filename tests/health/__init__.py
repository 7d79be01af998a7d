"""What the gate tells of itself and of Mailman: metrics, health, status."""
